"""Only repeatable answers are expected of a pod."""

from hypothesis import given
from hypothesis import strategies as st

from lora_jobs.benchmarking.expectations import (
    MIN_STABLE_PIECES,
    expectation_of,
    is_stable,
    stable_prefix,
)

LONG = [f"t{i} " for i in range(16)]
PIECES = st.lists(st.sampled_from(["a", "b"]), max_size=20)


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_the_stable_prefix_begins_every_answer(answers: list[list[str]]) -> None:
    prefix = stable_prefix(answers)
    assert all(a[: len(prefix)] == prefix for a in answers)
    longer = [a[: len(prefix) + 1] for a in answers]
    assert len({tuple(x) for x in longer}) > 1 or any(len(x) == len(prefix) for x in longer)


def test_what_was_said_once_is_not_repeatable() -> None:
    assert not is_stable([LONG])
    assert is_stable([LONG, LONG])


def test_answers_that_part_too_early_are_not_expected() -> None:
    parted = LONG[: MIN_STABLE_PIECES - 1] + ["other"] * 9
    assert expectation_of("p", [1], [LONG, parted], {}) is None


def test_answers_that_part_later_are_expected_so_far() -> None:
    parted = [*LONG[:10], "other"]
    found = expectation_of("p", [1], [LONG, LONG, parted], {})
    assert found is not None
    assert found.answer == "".join(LONG[:10])


def test_it_is_known_which_other_models_would_be_noticed() -> None:
    found = expectation_of("p", [1], [LONG, LONG], {"base": ["no"] * 16, "merged": LONG})
    assert found is not None
    assert found.distinguishes == ["base"]
