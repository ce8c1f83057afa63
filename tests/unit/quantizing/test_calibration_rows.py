"""Calibration rows: the budget, to the token."""

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.quantizing.calibration import calibration_rows, shares

SEPARATOR = -1
records = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=30), max_size=20)


@given(records, st.integers(1, 8), st.integers(1, 16), st.integers(0, 5))
def test_rows_hold_exactly_the_budget_or_say_how_much_is_missing(
    texts: list[list[int]], samples: int, length: int, seed: int
) -> None:
    available = sum(len(t) + 1 for t in texts)
    wanted = samples * length
    if available < wanted:
        with pytest.raises(Refused, match=f"need {wanted - available} more") as refused:
            calibration_rows(
                texts, samples=samples, sequence_length=length, seed=seed, separator=SEPARATOR
            )
        assert refused.value.reason is Reason.TOO_LITTLE_CALIBRATION
        return
    rows = calibration_rows(
        texts, samples=samples, sequence_length=length, seed=seed, separator=SEPARATOR
    )
    assert [len(row) for row in rows] == [length] * samples
    # Whole records in some order, each ended once, cut at the budget.
    stream = [token for row in rows for token in row]
    parts = " ".join(map(str, stream)).split(str(SEPARATOR))
    whole = [[int(t) for t in part.split()] for part in parts[:-1]]
    pool = list(texts)
    for part in whole:
        assert part in pool
        pool.remove(part)


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    texts = [[i] * 3 for i in range(20)]

    def rows(seed: int) -> list[list[int]]:
        return calibration_rows(texts, samples=4, sequence_length=5, seed=seed)

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)
    # A golden order: another one would silently change every artifact.
    assert [row[0] for row in rows(0)] == [15, 18, 4, 10]


def test_a_record_that_ends_with_the_separator_gets_no_second_one() -> None:
    rows = calibration_rows(
        [[5, SEPARATOR], [5, SEPARATOR]], samples=1, sequence_length=4, seed=0, separator=SEPARATOR
    )
    assert rows == [[5, SEPARATOR, 5, SEPARATOR]]


weights = st.lists(st.fractions(Fraction(1, 1000), 1000), min_size=1, max_size=8)


@given(weights, st.integers(1, 500))
def test_shares_are_in_proportion_to_within_one_sample_or_say_who_gets_none(
    given_weights: list[Fraction], samples: int
) -> None:
    exact = [samples * weight / sum(given_weights) for weight in given_weights]
    counts: list[int] = []
    with suppress(Refused):
        counts = shares(samples, given_weights)
    if not counts:
        assert min(exact) < 1
        return
    assert sum(counts) == samples
    assert all(abs(count - share) < 1 for count, share in zip(counts, exact, strict=True))
    assert min(counts) > 0


def test_a_source_that_would_give_nothing_is_named() -> None:
    with pytest.raises(Refused, match="calibration source 1 gets none of 4 samples") as refused:
        shares(4, [Fraction(1), Fraction("0.01")])
    assert refused.value.reason is Reason.TOO_LITTLE_CALIBRATION


def test_the_shares_of_eight_to_two() -> None:
    assert shares(128, [Fraction("0.8"), Fraction("0.2")]) == [102, 26]
