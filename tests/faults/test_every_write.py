"""Each write of a whole life is where something goes wrong once, and the life ends the same.

The writes are taken from the trace of the fault-free life, so none can be forgotten.
"""

from collections.abc import Callable, Iterator, Sequence

import pytest

from faultlab.life import FAILED, FIRST, PARTS, SWITCH, Outcome
from faultlab.matrix import (
    Case,
    complaints,
    every_fault_at_every_write,
    judge,
    one_fault_at_every_write,
)
from faultlab.proxy import Fault
from faultlab.writes import Point
from lora_api import PLURAL

References = dict[str, Outcome]
RunCases = Callable[[Sequence[Case]], list[Outcome]]


def test_the_fault_free_life_is_without_fault(references: References) -> None:
    for outcome in references.values():
        assert not complaints(outcome, outcome), outcome.name
        assert len(outcome.trace) <= 50, "writes of a part, Events among them"


def test_two_fault_free_lives_are_alike(run_cases: RunCases, references: References) -> None:
    for outcome in run_cases([Case(part, Fault()) for part in PARTS]):
        reference = references[outcome.part.name]
        assert _acts(outcome.trace) == _acts(reference.trace)
        assert complaints(outcome, reference) == []


@pytest.mark.fault("F1", "F2", "F4")
def test_killed_after_each_write_before_the_answer(
    run_cases: RunCases, references: References, subtests: pytest.Subtests
) -> None:
    cases = list(_once_at_every_write(references))
    judge(run_cases(cases), references, subtests)


@pytest.mark.fault("F1", "F2", "F4", "F5", "F12")
@pytest.mark.exhaustive
@pytest.mark.timeout(5400)
def test_every_fault_at_every_write(
    run_cases: RunCases, references: References, subtests: pytest.Subtests
) -> None:
    traces = {part: references[part.name].trace for part in PARTS}
    cases = [c for part in PARTS for c in every_fault_at_every_write(part, traces[part])]
    judge(run_cases(cases), references, subtests)


def _acts(trace: Sequence[Point]) -> list[Point]:
    """All but what is told: whether a look falls between a pod's start and its readiness, or not.

    Such a look has one status more to tell, and does nothing else.
    """
    return [point for point in trace if point.plural != PLURAL]


def _once_at_every_write(references: References) -> Iterator[Case]:
    """Of Events the first of a kind; of later parts what has no like in the first."""
    first = [p for p in references[FIRST.name].trace if p.plural != "events" or p.nth == 1]
    yield from one_fault_at_every_write(FIRST, first)
    switch, failed = references[SWITCH.name].trace, references[FAILED.name].trace
    rollout = next(i for i, p in enumerate(switch) if "RollingOut" in p.label)
    verdict = next(i for i, p in enumerate(failed) if "Rejected" in p.label)
    yield from one_fault_at_every_write(SWITCH, [*switch[:2], *switch[rollout:]])
    yield from one_fault_at_every_write(FAILED, failed[verdict:])
