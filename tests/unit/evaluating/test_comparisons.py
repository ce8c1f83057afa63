"""Comparisons are paired by document, over all of them and over two halves."""

import math
import random

import pytest

from lora_api.estimates import Part, comparison, estimate, is_comparison
from lora_jobs.evaluating.comparisons import comparisons_of, documents_of
from lora_jobs.evaluating.scores import Score

TASK = "Perplexity/task"
WINDOWS = 120
TRUE_NLL = {"base": 4.0, "dynamic": 3.0, "merged": 3.0, "quantized": 3.02}


def score(condition: str, set_name: str = "task", noise: float = 0.01) -> Score:
    """60 documents of two windows; what is hard in a document is hard for every condition."""
    hard, own = random.Random("hard"), random.Random(condition)
    tokens = tuple(10 + i % 7 for i in range(WINDOWS))
    nlls = tuple(t * (TRUE_NLL[condition] + hard.gauss(0, 1) + own.gauss(0, noise)) for t in tokens)
    return Score(condition, set_name, {}, tuple(i // 2 for i in range(WINDOWS)), tokens, nlls)


def test_each_pair_is_the_ratio_of_the_reported_perplexities() -> None:
    scores = {c: score(c) for c in TRUE_NLL}
    rows = comparisons_of(scores.values())
    for one, other in (("quantized", "merged"), ("base", "merged"), ("merged", "dynamic")):
        ratio = scores[one].perplexity / scores[other].perplexity
        found = estimate(rows, comparison(TASK, one, other))
        assert float(found.value) == pytest.approx(ratio, abs=1e-6)
        assert found.documents == 60
        assert 55 < found.effective_documents <= 60


def test_pairing_takes_out_what_is_hard_for_every_model() -> None:
    found = estimate(
        comparisons_of([score("merged"), score("quantized")]),
        comparison(TASK, "quantized", "merged"),
    )
    assert found.lower is not None
    assert found.upper is not None
    # Unpaired, one standard error of the mean NLL is 1 / sqrt(120) = 0.09 nats.
    assert 0 < float(found.upper - found.lower) < 0.02
    assert float(found.lower) < math.exp(0.02) < float(found.upper)


def test_gain_retained_is_the_share_of_the_gain_on_each_part() -> None:
    rows = comparisons_of(score(c) for c in TRUE_NLL)
    for part in Part:
        found = estimate(rows, comparison("GainRetained/task", "quantized", "merged", part))
        assert float(found.value) == pytest.approx(0.98, abs=0.01)


def test_of_no_gain_no_share_is_told() -> None:
    worse = [score("base"), score("merged"), score("quantized")]
    swapped = [
        Score("merged" if s.condition == "base" else "base", *list(vars(s).values())[1:])
        if s.condition != "quantized" else s
        for s in worse
    ]  # fmt: skip
    rows = comparisons_of(swapped)
    assert comparison(TASK, "base", "merged") in rows
    assert not [key for key in rows if key.startswith("GainRetained")]


def test_the_halves_are_disjoint_equal_and_everything() -> None:
    some = score("base")
    chosen, confirmed = (set(documents_of(some, p)) for p in (Part.SELECTION, Part.CONFIRMATION))
    assert not chosen & confirmed
    assert sorted(chosen | confirmed) == documents_of(some, Part.ALL)
    assert abs(len(chosen) - len(confirmed)) <= 1
    # Golden: another draw would judge stored scores anew.
    assert documents_of(some, Part.SELECTION)[:6] == [0, 2, 3, 5, 6, 7]


def test_each_part_is_estimated_on_its_own_documents() -> None:
    merged, quantized = score("merged"), score("quantized")
    chosen = set(documents_of(merged, Part.SELECTION))
    damaged = tuple(
        n + (t if d in chosen else 0)
        for d, t, n in zip(quantized.documents, quantized.tokens, quantized.nlls, strict=True)
    )
    rows = comparisons_of([merged, Score("quantized", "task", {}, quantized.documents,
                                         quantized.tokens, damaged)])  # fmt: skip
    on = {p: float(estimate(rows, comparison(TASK, "quantized", "merged", p)).value) for p in Part}
    assert on[Part.SELECTION] > 2.5 > on[Part.ALL] > 1.5
    assert on[Part.CONFIRMATION] == pytest.approx(math.exp(0.02), abs=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_compared(bad: float) -> None:
    broken = Score("quantized", "task", {}, (0, 1), (5, 5), (1.0, bad))
    rows = comparisons_of([Score("merged", "task", {}, (0, 1), (5, 5), (1.0, 1.0)), broken])
    assert not [key for key in rows if "quantized" in key]


def test_every_row_is_a_comparison() -> None:
    rows = comparisons_of(score(c, s) for c in TRUE_NLL for s in ("task", "general"))
    assert all(map(is_comparison, rows))
    assert len(rows) == 2 * (3 + 2 * 3) + 3
