"""bf16, fp16 and fp32 keep what they can hold, rounded to nearest even, and refuse the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_jobs.merging.tensors import NotFinite, narrow, squared_norm, widen
from mergefiles import to_bf16

LARGEST_BF16 = float(np.ldexp(255, 120))


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_rounds_to_nearest_even_or_says_that_it_does_not_fit(value: float) -> None:
    nearest = float(to_bf16(np.array([value]))[0])
    if abs(nearest) > LARGEST_BF16:
        with pytest.raises(NotFinite):
            narrow(np.array([value]), "BF16")
        return
    raw = narrow(np.array([value]), "BF16")
    assert float(widen(raw, "BF16", (1,))[0]) == nearest


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-8 + 2**-20, 1 + 2**-7)],
    ids=["a tie goes down to even", "a tie goes up to even", "above a tie goes up"],
)
def test_bf16_breaks_ties_to_even(value: float, rounded: float) -> None:
    assert widen(narrow(np.array([value]), "BF16"), "BF16", (1,))[0] == rounded


@given(st.floats(width=16, allow_nan=False, allow_infinity=False))
def test_fp16_is_kept_exactly(value: float) -> None:
    raw = np.array([value], np.float16).view(np.uint8)
    assert widen(raw, "F16", (1,))[0] == value
    assert (narrow(np.array([value]), "F16") == raw).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e60])
def test_what_is_not_finite_is_refused(dtype: str, value: float) -> None:
    with pytest.raises(NotFinite):
        narrow(np.array([0.5, value, 0.5]), dtype)


def test_a_bf16_value_beyond_fp16_is_refused() -> None:
    with pytest.raises(NotFinite):
        narrow(np.array([65520.0]), "F16")
    assert widen(narrow(np.array([65519.0]), "F16"), "F16", (1,))[0] == 65504


def test_large_values_that_fit_are_kept() -> None:
    """Their sum of squares overflows, they do not."""
    raw = narrow(np.array([LARGEST_BF16, -1e30]), "BF16")
    assert widen(raw, "BF16", (2,))[0] == LARGEST_BF16


def test_the_norm_of_a_product_needs_no_product() -> None:
    random = np.random.default_rng(0)
    b, a = random.normal(size=(30, 4)), random.normal(size=(4, 50))
    assert squared_norm(b, a @ a.T) == pytest.approx(((b @ a) ** 2).sum())
