"""Every write of a life, and what may happen at it; and whether a case ended as it must."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from faultlab.faults import CrashAfter, CrashBefore, LostReply, Refused, StaleReads
from faultlab.life import Outcome, Part
from faultlab.proxy import Fault
from faultlab.writes import Point
from gitops import by_kstatus

Json = dict[str, Any]
_ANSWERS = (409, 500, 429, 503, 504)
_COUNTED = ("jobs", "deployments", "services")


@dataclass(frozen=True)
class Case:
    """A part of a life under one fault."""

    part: Part
    fault: Fault


def every_fault_at_every_write(part: Part, trace: Sequence[Point]) -> Iterator[Case]:
    """Crash before, crash after, reply lost, refused (each write with another answer), stale."""
    for number, point in enumerate(trace):
        answer = _ANSWERS[number % len(_ANSWERS)]
        for fault in (
            CrashBefore(point), CrashAfter(point), LostReply(point), Refused(point, answer),
            StaleReads(point),
        ):  # fmt: skip
            yield Case(part, fault)


def one_fault_at_every_write(part: Part, trace: Sequence[Point]) -> Iterator[Case]:
    """The most dangerous one: carried out, and then the operator dies before it knows."""
    return (Case(part, CrashAfter(point)) for point in trace)


def complaints(outcome: Outcome, reference: Outcome) -> list[str]:
    """All that is not as it must be.

    Args:
        outcome: The case.
        reference: The same part without a fault.
    """
    found = list(outcome.trouble)
    for key, count in outcome.counts.items():
        if key[1] in _COUNTED and count > reference.counts[key]:
            found.append(f"{' '.join(key)}: {count} times, not {reference.counts[key]}")
    if outcome.ran != reference.ran:
        found.append(f"work was done: {outcome.ran}, not {reference.ran}")
    more = {s: n for s, n in outcome.pods.items() if n > reference.pods.get(s, 0)}
    if more:
        found.append(f"more pods than without the fault: {more}, {reference.pods}")
    if outcome.restarts > outcome.fault.restarts:
        found.append(f"the operator ended by itself {outcome.restarts} times")
    return found + _differences(outcome.end, reference.end)


def judge(
    outcomes: Sequence[Outcome], references: Mapping[str, Outcome], subtests: pytest.Subtests
) -> None:
    """Each case is a test of its own; then kstatus is asked about all that was told."""
    for outcome in outcomes:
        with subtests.test(outcome.name):
            found = complaints(outcome, references[outcome.part.name])
            assert not found, "\n".join([*found, outcome.log[-3000:]])
    missed = [o.name for o in outcomes if not o.fault.fired]
    assert len(missed) <= len(outcomes) // 20, f"these faults found nothing to harm: {missed}"
    told = [t for outcome in outcomes for t in outcome.told]
    verdicts = by_kstatus(*(document for document, _ in told))
    early = [
        d for (d, may_be), v in zip(told, verdicts, strict=True) if v == "Current" and not may_be
    ]
    assert not early, "kstatus must not say Current before what is asked for serves"


def _differences(end: Json, reference: Json) -> list[str]:
    if end == reference:
        return []
    before, after = (json.dumps(d, indent=1, sort_keys=True).splitlines() for d in (reference, end))
    lines = difflib.unified_diff(before, after, "fault-free", "this", lineterm="", n=2)
    difference = "\n".join(lines)
    return [f"the end is another one:\n{difference}"]
