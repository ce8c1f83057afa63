"""Which condition is measured when, and when enough has been measured. Pure.

The first block measures every condition once. Later blocks repeat base and quantized, which the
gates compare: there the restart of the engine is the replicate. Each block has its own random
order, so that drift of the machine favours nobody.
"""

import math
import random
from collections.abc import Sequence

from lora_api.estimates import MIN_BLOCKS
from lora_api.gates import BASE, QUANTIZED
from lora_jobs.intervals.blocks import BlockRatio

MAX_BLOCKS = 40
BLOCKS_WITHOUT_PAIR = 2


def compared(conditions: Sequence[str]) -> tuple[str, ...]:
    """The conditions that every block repeats; all of them when the pair is not there."""
    pair = tuple(c for c in conditions if c in (BASE, QUANTIZED))
    return pair if len(pair) == 2 else tuple(conditions)


def block_order(conditions: Sequence[str], block: int, seed: int) -> list[str]:
    """The conditions of a block, counted from 0, in its order."""
    members = list(conditions if block == 0 else compared(conditions))
    random.Random(f"{seed}/{block}").shuffle(members)  # noqa: S311 - not for secrets
    return members


def is_precise(intervals: Sequence[BlockRatio], precision: float) -> bool:
    """Whether every interval's half-width is within `precision`, a fraction."""
    return bool(intervals) and all(i.half_width <= precision for i in intervals)


def is_enough(
    blocks: int,
    elapsed_seconds: float,
    block_seconds: float,
    max_duration_seconds: float,
    intervals: Sequence[BlockRatio],
    precision: float,
) -> bool:
    """Whether to stop after `blocks` blocks: precise, or another would take too long.

    The limit of a gate plays no part in it. Without a pair to compare there is no interval, and two
    blocks are enough.

    Args:
        blocks: Finished blocks.
        elapsed_seconds: Since the benchmark began.
        block_seconds: What another block will take.
        max_duration_seconds: What all may take.
        intervals: Of every timing metric, quantized against base.
        precision: Half-width to reach.
    """
    if elapsed_seconds + block_seconds > max_duration_seconds or blocks >= MAX_BLOCKS:
        return True
    if not intervals:
        return blocks >= BLOCKS_WITHOUT_PAIR
    return blocks >= MIN_BLOCKS and is_precise(intervals, precision)


def blocks_that_fit(left_seconds: float, block_seconds: float) -> int:
    """Blocks that can still be run, for the estimate of the time left."""
    if block_seconds <= 0:
        return 0
    return max(0, min(MAX_BLOCKS, math.floor(left_seconds / block_seconds)))
