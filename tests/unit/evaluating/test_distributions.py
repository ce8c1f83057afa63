"""How far two models are apart in what they would say next."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.estimates import DIVERGENCE, TOP_TOKEN_AGREEMENT, comparison
from lora_api.gates import DYNAMIC, MERGED, QUANTIZED
from lora_jobs.evaluating.distributions import (
    Distributions,
    agreement_rows,
    distributions_from,
    divergences,
    sample_of,
)
from lora_jobs.evaluating.windows import Window

VOCABULARY = 12
shares = st.lists(st.floats(0.001, 1.0), min_size=VOCABULARY, max_size=VOCABULARY)


def kept(values: list[float], count: int) -> Distributions:
    """One position of a model with these shares, of which the likeliest are kept."""
    total = math.fsum(values)
    order = sorted(range(len(values)), key=lambda i: -values[i])[:count]
    return Distributions(
        (0,), (tuple(order),), (tuple(math.log(values[i] / total) for i in order),)
    )


def exact(true: list[float], other: list[float]) -> float:
    p, q = ([v / math.fsum(values) for v in values] for values in (true, other))
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@given(true=shares, other=shares)
def test_with_all_tokens_kept_the_divergence_is_exact(
    true: list[float], other: list[float]
) -> None:
    [found] = divergences(kept(true, VOCABULARY), kept(other, VOCABULARY))
    assert found == pytest.approx(exact(true, other), abs=1e-6)


@given(true=shares, other=shares, count=st.integers(1, VOCABULARY))
def test_with_some_kept_it_is_never_more_than_the_exact_one(
    true: list[float], other: list[float], count: int
) -> None:
    [found] = divergences(kept(true, count), kept(other, count))
    assert 0 <= found <= exact(true, other) + 1e-6


def test_models_that_hold_quite_other_tokens_likely_are_far_apart() -> None:
    one = Distributions((0,), ((1, 2),), ((math.log(0.6), math.log(0.39)),))
    other = Distributions((0,), ((3, 4),), ((math.log(0.6), math.log(0.39)),))
    assert divergences(one, other)[0] > 0.2
    surer = replace(other, logs=((math.log(0.99), math.log(0.009)),))
    assert divergences(one, surer)[0] > 3


def test_unlike_samples_are_not_compared() -> None:
    one = kept([0.5] * VOCABULARY, 4)
    with pytest.raises(ValueError, match="unlike samples"):
        divergences(one, replace(one, documents=(1,)))


def test_rows_hold_the_mean_and_how_often_the_likeliest_token_is_the_same() -> None:
    sure, unsure = (math.log(0.9), math.log(0.05)), (math.log(0.6), math.log(0.3))
    documents = tuple(n for n in range(12) for _ in range(2))
    merged = Distributions(documents, ((1, 2),) * 24, (sure,) * 24)
    quantized = Distributions(documents, ((1, 2),) * 18 + ((2, 1),) * 6, (unsure,) * 24)
    rows = agreement_rows({MERGED: merged.to_document(), QUANTIZED: quantized.to_document()})
    assert rows[comparison(TOP_TOKEN_AGREEMENT, QUANTIZED, MERGED)]["value"] == "0.750000"
    apart = rows[comparison(DIVERGENCE, QUANTIZED, MERGED)]
    same, other = divergences(merged, quantized)[0], divergences(merged, quantized)[-1]
    assert float(apart["value"]) == pytest.approx(0.75 * same + 0.25 * other, abs=1e-5)
    assert float(apart["lower"]) < float(apart["value"]) < float(apart["upper"])
    assert comparison(DIVERGENCE, MERGED, DYNAMIC) not in rows, "dynamic was not measured"


def test_what_is_stored_is_what_was_measured_or_nothing() -> None:
    made = kept([0.5, 0.25, 0.25], 2)
    read = distributions_from(made.to_document())
    assert read is not None
    assert read.tokens == made.tokens
    assert read.logs[0] == pytest.approx(made.logs[0], abs=1e-5)
    assert distributions_from(made.to_document() | {"tokens": [[1]]}) is None
    assert distributions_from({}) is None


def test_a_sample_is_the_first_windows_up_to_a_number_of_tokens_at_least_one() -> None:
    windows = [Window(n, (1, 2, 3), (False, True, True)) for n in range(5)]
    assert sample_of(windows, 5) == windows[:2]
    assert sample_of(windows, 1) == windows[:1]
