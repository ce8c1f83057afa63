"""What is measured when, and when it is enough."""

import math

from hypothesis import given
from hypothesis import strategies as st

from lora_api.gates import CONDITIONS
from lora_jobs.benchmarking.blocks import MAX_BLOCKS, block_order, blocks_that_fit, is_enough
from lora_jobs.intervals.blocks import BlockRatio

WIDE, NARROW = BlockRatio(1.0, 0.5, 3), BlockRatio(1.0, 0.01, 3)


@given(st.integers(0, 30), st.integers())
def test_the_first_block_holds_all_and_later_ones_the_pair_that_gates_compare(
    block: int, seed: int
) -> None:
    order = block_order(CONDITIONS, block, seed)
    assert sorted(order) == sorted(CONDITIONS if block == 0 else ("base", "quantized"))
    assert order == block_order(CONDITIONS, block, seed)


def test_blocks_come_in_different_orders() -> None:
    assert len({tuple(block_order(CONDITIONS, block, 0)) for block in range(1, 9)}) == 2


def test_without_the_pair_every_block_repeats_what_there_is() -> None:
    assert sorted(block_order(("base", "merged"), 3, 0)) == ["base", "merged"]


def enough(blocks: int, elapsed: float, intervals: list[BlockRatio]) -> bool:
    return is_enough(blocks, elapsed, 10.0, 100.0, intervals, precision=0.05)


def test_sampling_goes_on_until_every_metric_is_precise() -> None:
    assert not enough(6, 60, [NARROW, WIDE])
    assert enough(6, 60, [NARROW, NARROW])


def test_fewer_than_six_blocks_are_never_precise() -> None:
    assert not enough(1, 10, [BlockRatio(1.0, math.inf, 1)])
    assert not enough(5, 50, [NARROW])
    assert not enough(1, 10, [])
    assert enough(2, 20, [])


def test_no_block_is_begun_that_would_end_too_late() -> None:
    assert not enough(3, 90, [WIDE])
    assert enough(3, 91, [WIDE])
    assert enough(1, 91, [WIDE])


def test_a_gate_s_limit_is_no_input_and_blocks_are_bounded() -> None:
    assert enough(MAX_BLOCKS, 0, [WIDE])
    assert blocks_that_fit(95, 10) == 9
    assert blocks_that_fit(-5, 10) == blocks_that_fit(5, 0) == 0
