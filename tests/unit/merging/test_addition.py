"""The compiled kernel of the merge gives the bytes that float64 gives, or leaves them to it."""

import shutil
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_jobs.merging import addition
from lora_jobs.merging.addition import Addition, Sums
from lora_jobs.merging.tensors import Float64, NotFinite, Raw, count_equal, narrow, widen

BF16_INFINITY = 0x7F80


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: this wheel is a pure one, which sums in float64")
    assert addition.kernel() is not None, "there is a C compiler, but no kernel: make venv"


def in_float64(raw: Raw, left: Float64, right: Float64) -> Raw:
    shape = (len(left), right.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        return narrow(left @ right + widen(raw, "BF16", shape), "BF16")


class Added(NamedTuple):
    rounded: Raw
    sums: Sums


def add(right: Float64, raw: Raw, left: Float64) -> Added | None:
    """What the kernel makes of it; the memory for it holds something before."""
    rounded = np.full_like(raw, 0xAB)
    sums = Addition(right).add(raw, left, rounded)
    return sums and Added(rounded, sums)


def factors(rows: int, columns: int, rank: int, exponent: int, seed: int) -> tuple[Float64, ...]:
    """Thin matrices as adapters hold them: float32 values, of about 2^exponent in the product."""
    drawn = np.random.default_rng(seed)
    left = drawn.standard_normal((rows, rank)).astype(np.float32) * 2.0 ** (exponent // 2)
    right = drawn.standard_normal((rank, columns)).astype(np.float32)
    right *= 2.0 ** (exponent - exponent // 2)
    return left.astype(np.float64), right.astype(np.float64)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 700),
    rank=st.integers(1, 64),
    weights=st.integers(-126, 126),
    update=st.integers(-130, 120),
    seed=st.integers(0, 10_000),
)
def test_its_bytes_are_those_of_float64(
    rows: int, columns: int, rank: int, weights: int, update: int, seed: int
) -> None:
    left, right = factors(rows, columns, rank, update, seed)
    with np.errstate(over="ignore"):
        values = np.random.default_rng(seed + 1).standard_normal(rows * columns) * 2.0**weights
        raw = narrow(np.clip(values, -3e38, 3e38), "BF16")
        added = add(right, raw, left)
    if added is not None:
        assert added.rounded.tobytes() == in_float64(raw, left, right).tobytes()


def test_the_squares_of_the_weights_are_summed_too() -> None:
    left, right = factors(64, 4096, 16, -9, seed=0)
    raw = _weights(64 * 4096, 0.02)
    added = add(right, raw, left)
    assert added is not None
    assert added.rounded.tobytes() == in_float64(raw, left, right).tobytes()
    squares = float(np.square(widen(raw, "BF16", (raw.size // 2,)).astype(np.float64)).sum())
    assert added.sums.weights_squared == pytest.approx(squares, rel=1e-5)


def test_weights_that_rounding_leaves_as_they_were_are_counted() -> None:
    left, right = factors(64, 700, 16, -16, seed=0)
    raw = _weights(64 * 700, 0.02)
    added = add(right, raw, left)
    assert added is not None
    assert added.sums.unchanged == count_equal(added.rounded, raw, "BF16")
    assert 0 < added.sums.unchanged < 64 * 700


def test_sums_that_lie_in_the_middle_of_two_numbers_go_to_the_even_one() -> None:
    """Adds half a unit in the last place to every mantissa of 1.0 to 2.0."""
    bits = np.arange(0x3F80, 0x4000, dtype=np.uint16)
    raw = bits.view(np.uint8)
    right = np.full((1, len(bits)), 2.0**-8)
    one = np.ones((1, 1))
    padded = np.concatenate([raw, _weights(64 * len(bits), 1.0)])
    left = np.vstack([one, np.zeros((64, 1))])
    added = add(right, padded, left)
    assert added is not None
    even = added.rounded.view(np.uint16)[: len(bits)] & 1
    assert not even.any()


def test_factors_of_weights_that_are_stored_the_other_way_round_are_taken_too() -> None:
    left, right = factors(40, 300, 8, -3, seed=1)
    raw = _weights(40 * 300, 1.0)
    added = add(np.asfortranarray(right), raw, np.asfortranarray(left))
    assert added is not None
    assert added.rounded.tobytes() == in_float64(raw, left, right).tobytes()


def test_an_update_of_nothing_changes_nothing() -> None:
    raw = _weights(3 * 300, 1.0)
    added = add(np.ones((2, 300)), raw, np.zeros((3, 2)))
    assert added is not None
    assert added.rounded.tobytes() == raw.tobytes()


@pytest.mark.parametrize("bits", [BF16_INFINITY, BF16_INFINITY + 1, 0xFF80, 0xFFC0])
def test_what_is_not_finite_is_left_to_float64(bits: int) -> None:
    raw = np.full(600, 0x3F80, np.uint16)
    raw[-1] = bits
    assert add(np.ones((1, 600)), raw.view(np.uint8), np.ones((1, 1))) is None


@pytest.mark.parametrize("sign", [0x0000, 0x8000])
def test_a_sum_beyond_the_largest_is_left_to_float64(sign: int) -> None:
    raw = np.full(600, 0x3F80, np.uint16)
    raw[3] = sign | (BF16_INFINITY - 1)
    update = np.where(np.arange(600) == 3, (-1.0 if sign else 1.0) * 2.0**119, 0.0)[np.newaxis]
    assert add(update, raw.view(np.uint8), np.ones((1, 1))) is None
    with pytest.raises(NotFinite):
        in_float64(raw.view(np.uint8), np.ones((1, 1)), update)


def test_without_a_kernel_all_is_left_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addition, "kernel", lambda: None)
    assert add(np.ones((1, 8)), _weights(8, 1.0), np.ones((1, 1))) is None


def _weights(count: int, size: float) -> Raw:
    values = np.random.default_rng(7).standard_normal(count) * size
    return narrow(values, "BF16")
