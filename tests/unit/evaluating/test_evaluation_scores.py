"""Scores: arithmetic on stored numbers, unlike ones refused."""

import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.gates import MissingMeasurement, number
from lora_jobs.evaluating.scores import (
    Key,
    Score,
    UnlikeScores,
    entry_hash,
    measurements_of,
    score_from,
    score_of,
)
from lora_jobs.evaluating.windows import Window

KEY: Key = {"set": "s", "windows": "w", "context_length": 8, "models": ["m"]}


def score(condition: str, nlls: list[float], **key: Any) -> Score:
    windows = [Window(i, (1, 2, 3), (False, True, True)) for i in range(len(nlls))]
    return score_of(condition, "task", {**KEY, **key}, windows, nlls)


def test_perplexity_weighs_tokens_and_not_windows() -> None:
    windows = [Window(0, (1, 2), (False, True)), Window(1, (1, 2, 3, 4), (False, True, True, True))]
    found = score_of("base", "task", KEY, windows, [4.0, 3.0])
    assert found.nll_per_token == pytest.approx(7 / 4)
    assert found.perplexity == pytest.approx(math.exp(7 / 4))


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=20))
def test_a_score_that_is_stored_and_read_back_is_the_same(nlls: list[float]) -> None:
    made = score("merged", nlls)
    stored = json.loads(json.dumps(made.to_document()))
    assert score_from(stored, "merged", "task", made.key) == made


def test_a_stored_document_of_another_key_or_shape_is_no_score() -> None:
    made = score("merged", [1.0, 2.0])
    document = made.to_document()
    assert score_from(document, "merged", "task", {**made.key, "windows": "x"}) is None
    for broken in (
        {},
        {**document, "nlls": ["1.0"]},
        {**document, "nlls": ["?", "1"]},
        {**document, "tokens": [], "documents": [], "nlls": []},
    ):
        assert score_from(broken, "merged", "task", made.key) is None


def test_equal_keys_share_an_entry_and_others_do_not() -> None:
    assert entry_hash({**KEY}) == entry_hash(dict(reversed(KEY.items())))
    assert entry_hash(KEY) != entry_hash({**KEY, "models": ["other"]})


def test_models_may_differ_between_what_is_compared() -> None:
    rows = measurements_of(
        [score("base", [4.0], models=["b"]), score("merged", [2.0], models=["m"])], {"base": 7}
    )
    assert rows["NegativeLogLikelihood/task"] == {"base": "2.000000", "merged": "1.000000"}
    assert rows["WeightsBytes"] == {"base": "7"}
    assert number(rows, "Perplexity/task", "merged") == Fraction("2.718282")


@pytest.mark.parametrize("other", [{"context_length": 16}, {"windows": "x"}, {"set": "t"}])
def test_numbers_of_unlike_protocols_are_never_put_side_by_side(other: Key) -> None:
    with pytest.raises(UnlikeScores, match=next(iter(other))):
        measurements_of([score("base", [4.0]), score("merged", [2.0], **other)], {})


@pytest.mark.parametrize("nll", [math.nan, math.inf, 1e6])
def test_what_is_not_finite_is_reported_and_passes_no_gate(nll: float) -> None:
    rows = measurements_of([score("quantized", [nll])], {})
    with pytest.raises(MissingMeasurement):
        number(rows, "Perplexity/task", "quantized")
