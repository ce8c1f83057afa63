"""What the operator is told may be late, twice, too little or nothing: the life ends the same."""

from collections.abc import Callable, Sequence

import pytest

from faultlab.faults import (
    DelayedEvents,
    DroppedEvent,
    EventsEndInError,
    NoEvents,
    Outage,
    RepeatedEvents,
    SilentStreams,
    WatchesRefused,
)
from faultlab.life import FIRST, SWITCH, Outcome
from faultlab.matrix import Case, judge
from faultlab.proxy import Fault
from faultlab.writes import Point

References = dict[str, Outcome]
RunCases = Callable[[Sequence[Case]], list[Outcome]]
KINDS = ("loradeployments", "jobs", "pods", "deployments", "services")


@pytest.mark.fault("F6", "F7", "F9", "F11")
def test_events_lost_repeated_late_or_ended_by_an_error(
    run_cases: RunCases, references: References, subtests: pytest.Subtests
) -> None:
    faults: list[Fault] = [
        NoEvents(KINDS),
        NoEvents(("jobs", "pods")),
        NoEvents(("loradeployments",)),
        RepeatedEvents(),
        DelayedEvents({"jobs": 1.0}),
        DelayedEvents({"loradeployments": 1.0, "pods": 0.5}),
        EventsEndInError(410),
        EventsEndInError(500),
        WatchesRefused(410),
        WatchesRefused(503),
        SilentStreams(),
    ]
    cases = [Case(FIRST, fault) for fault in faults]
    cases += [Case(SWITCH, fault) for fault in (NoEvents(KINDS), RepeatedEvents())]
    judge(run_cases(cases), references, subtests)


@pytest.mark.fault("F10")
def test_an_api_server_that_is_away_is_not_stormed(
    run_cases: RunCases, references: References, subtests: pytest.Subtests
) -> None:
    first = references[FIRST.name].trace
    at = [_create(first, stage) for stage in ("merge", "verify")]
    outages = [Outage(point, status, 5.0) for point in at for status in (503, 429)]
    judge(run_cases([Case(FIRST, outage) for outage in outages]), references, subtests)
    assert [o.name for o in outages if o.asked > 10 * 5.0] == [], "at most 10 requests a second"


@pytest.mark.fault("F6")
@pytest.mark.exhaustive
@pytest.mark.timeout(5400)
def test_each_event_of_a_child_is_lost_once(
    run_cases: RunCases, references: References, subtests: pytest.Subtests
) -> None:
    counts = {"jobs": 24, "pods": 24, "deployments": 4, "services": 1, "loradeployments": 20}
    faults = [DroppedEvent(kind, n + 1) for kind, count in counts.items() for n in range(count)]
    judge(run_cases([Case(FIRST, fault) for fault in faults]), references, subtests)


def _create(trace: Sequence[Point], stage: str) -> Point:
    return next(p for p in trace if p.verb == "create" and p.label.startswith(stage))
