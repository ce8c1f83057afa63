"""Whether an answer is right, and how far two conditions are apart in that."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.estimates import PASS_RATE, Part, comparison
from lora_api.gates import BASE, MERGED, QUANTIZED
from lora_api.scoring import Scorer, ScorerType
from lora_jobs.datasets.questions import Question
from lora_jobs.errors import Refused
from lora_jobs.evaluating.passing import check_expected, is_right, pass_rows
from lora_jobs.intervals.proportions import Disagreement

RIGHT = [
    (ScorerType.EXACT_MATCH, " SELECT 1\n", "SELECT 1"),
    (ScorerType.CONTAINS, "the answer is 42, I think", "42"),
    (ScorerType.REGEX, "it is 42.", r"\b42\b"),
    (ScorerType.JSON_EQUAL, '{"b": 1, "a": [true]}', '{"a": [true], "b": 1}'),
]
WRONG = [
    (ScorerType.EXACT_MATCH, "SELECT 1;", "SELECT 1"),
    (ScorerType.CONTAINS, "the answer is 4 2", "42"),
    (ScorerType.REGEX, "it is 421.", r"\b42\b"),
    (ScorerType.JSON_EQUAL, '{"a": 1}', '{"a": true}'),
    (ScorerType.JSON_EQUAL, "no json", "{}"),
]


@pytest.mark.parametrize(("kind", "answer", "expected"), RIGHT)
def test_a_right_answer(kind: ScorerType, answer: str, expected: str) -> None:
    assert is_right(kind, answer, expected)


@pytest.mark.parametrize(("kind", "answer", "expected"), WRONG)
def test_a_wrong_answer(kind: ScorerType, answer: str, expected: str) -> None:
    assert not is_right(kind, answer, expected)


def test_a_pattern_that_never_ends_is_no_match() -> None:
    assert not is_right(ScorerType.REGEX, "a" * 40 + "b", r"(a|aa)+$")


@pytest.mark.parametrize(
    ("kind", "expected"), [(ScorerType.REGEX, "(["), (ScorerType.JSON_EQUAL, "{'a': 1}")]
)
def test_a_completion_that_cannot_be_compared_with_is_refused_by_its_number(
    kind: ScorerType, expected: str
) -> None:
    questions = [Question((1,), "1"), Question((1,), expected)]
    with pytest.raises(Refused, match="record 2 of the task set"):
        check_expected(Scorer(type=kind), questions)


@pytest.mark.parametrize("records", [10, 44, 200])
def test_without_any_disagreement_the_interval_has_the_width_that_follows_from_its_score(
    records: int,
) -> None:
    width = 1.959964**2 / (records + 1.959964**2)  # the score at b = c = 0, solved by hand
    assert Disagreement(0, 0, records).bounds == pytest.approx((-width, width), abs=1e-5)


@pytest.mark.parametrize(("gained", "lost", "records"), [(12, 2, 50), (1, 5, 60), (30, 31, 400)])
def test_at_its_bounds_the_score_is_the_quantile_with_the_likelihood_maximised_by_search(
    gained: int, lost: int, records: int
) -> None:
    from scipy.optimize import minimize_scalar

    same = records - gained - lost
    for bound, sign in zip(Disagreement(gained, lost, records).bounds, (1, -1), strict=True):

        def unlikely(share: float, at: float = bound) -> float:
            chances = ((gained, share + at), (lost, share), (same, 1 - 2 * share - at))
            return -sum(count * math.log(max(chance, 1e-300)) for count, chance in chances)

        limits = (max(0.0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9)
        share = minimize_scalar(unlikely, bounds=limits, options={"xatol": 1e-10}).x
        deviation = math.sqrt(records * (2 * share + bound - bound * bound))
        score = (gained - lost - records * bound) / deviation
        assert score == pytest.approx(sign * 1.959964, abs=1e-3)


@given(data=st.data(), records=st.integers(1, 400))
def test_an_interval_holds_the_difference_and_mirrors_when_both_are_exchanged(
    data: st.DataObject, records: int
) -> None:
    gained = data.draw(st.integers(0, records))
    lost = data.draw(st.integers(0, records - gained))
    found = Disagreement(gained, lost, records)
    low, high = found.bounds
    assert -1 <= low <= found.difference <= high <= 1
    assert low < high
    other = Disagreement(lost, gained, records).bounds
    assert (-other[1], -other[0]) == pytest.approx((low, high), abs=1e-6)


def test_bounds_hold_the_truth_in_95_of_100_samples() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for records, gained, lost in ((60, 0.02, 0.05), (200, 0.1, 0.1), (150, 0.0, 0.03)):
        drawn = rng.multinomial(records, [gained, lost, 1 - gained - lost], size=2000)
        held = 0
        bounds: dict[tuple[int, int], tuple[float, float]] = {}
        for b, c, _ in drawn:
            pair = (int(b), int(c))
            if pair not in bounds:
                bounds[pair] = Disagreement(*pair, records).bounds
            held += bounds[pair][0] <= gained - lost <= bounds[pair][1]
        assert held / len(drawn) > 0.935, (records, gained, lost)


def test_rows_tell_shares_and_differences_over_all_and_over_halves() -> None:
    merged = [True] * 90 + [False] * 10
    quantized = [True] * 87 + [False] * 13
    rows = pass_rows({c: {"passed": p} for c, p in ((MERGED, merged), (QUANTIZED, quantized))})
    assert rows[PASS_RATE] == {MERGED: "0.900000", QUANTIZED: "0.870000"}
    row = rows[comparison(PASS_RATE, QUANTIZED, MERGED)]
    assert row["value"] == "-0.030000"
    assert row["documents"] == "100"
    halves = [rows[comparison(PASS_RATE, QUANTIZED, MERGED, p)] for p in Part if p]
    assert math.fsum(float(r["value"]) for r in halves) == pytest.approx(-0.06)
    assert comparison(PASS_RATE, MERGED, BASE) not in rows
    assert pass_rows({}) == {}
