"""The trace of a run, read off two statuses of an object: what has ended between them.

    run                     from its resolve until it serves, fails, or another run takes its place
      resolve, merge, ...   each attempt that ended; a stage whose result was there takes no time

Pure. Ids are hashes of what they stand for: after a restart the same trace goes on.
An attempt of resolve that fails before the run is known belongs to a trace that has no `run`.
Times are to the second, as status has them.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lora_api.conditions import Condition, ConditionStatus, ConditionType
from lora_api.digests import canonical_json
from lora_api.status import RunStatus, StageStatus, Status
from lora_api.times import epoch_seconds
from lora_operator.observed import ObservedObject
from lora_operator.transitions import StageEnd, stage_ends

RUN = "run"
SUPERSEDED = "Superseded"
Value = str | int | bool


@dataclass(frozen=True)
class SpanRecord:
    """One span that has ended; times in seconds since the epoch, ids in hexadecimal.

    Attributes:
        parent_id: Empty for a span without parent.
        error: What went wrong, empty for nothing.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: float
    end: float
    attributes: Mapping[str, Value]
    error: str = ""


def trace_id(uid: str, run: RunStatus | None) -> str:
    """Of an object's run, 32 hex digits; empty while no run is known."""
    return _hashed(32, uid, run.id, run.started_at) if run else ""


def spans_of(
    parent: ObservedObject, before: Status, after: Status, now: float
) -> Iterator[SpanRecord]:
    """What has ended between two statuses of the object, `after` being written `now`."""
    if before.run and not before.run.completed_at and not _is_same(before.run, after.run):
        yield _run_span(parent, before, before.run, now, SUPERSEDED)
    for end in stage_ends(before, after):
        yield _stage_span(parent, after, end, now)
    if after.run and after.run.completed_at and not _has_completed(before.run, after.run):
        completed = epoch_seconds(after.run.completed_at)
        yield _run_span(parent, after, after.run, completed or now)


def _is_same(one: RunStatus, other: RunStatus | None) -> bool:
    return other is not None and (one.id, one.started_at) == (other.id, other.started_at)


def _has_completed(before: RunStatus | None, after: RunStatus) -> bool:
    """Whether the run had completed already, so that its span was sent."""
    return before is not None and bool(before.completed_at) and _is_same(before, after)


def _run_span(
    parent: ObservedObject, status: Status, run: RunStatus, end: float, reason: str = ""
) -> SpanRecord:
    trace, ready = trace_id(parent.uid, run), _ready(status)
    has_failed = not reason and ready is not None and ready.status is ConditionStatus.FALSE
    reason = reason or (ready.reason if ready else "")
    told: dict[str, Value] = {
        "candidate": run.candidate,
        "verdict": _verdict(status),
        "acceleratorSeconds": run.accelerator_seconds,
        "artifact": status.artifact.digest if status.artifact else "",
        "outcome": reason,
        "error": reason if has_failed else "",
    }
    return SpanRecord(
        trace_id=trace,
        span_id=_run_span_id(trace),
        parent_id="",
        name=RUN,
        start=_seconds(run.started_at, end),
        end=end,
        attributes=_attributes(parent, run, told),
        error=f"{reason}: {ready.message}" if has_failed and ready else "",
    )


def _stage_span(parent: ObservedObject, status: Status, end: StageEnd, now: float) -> SpanRecord:
    stage, run = end.stage, status.run
    # What a run is, is known once its sources are resolved.
    trace = trace_id(parent.uid, run) or _hashed(32, parent.uid, stage.input_hash)
    began, ended = _times(stage, _seconds(run.started_at, now) if run else now)
    return SpanRecord(
        trace_id=trace,
        span_id=_hashed(16, trace, stage.name, stage.input_hash, stage.completed_at),
        parent_id=_run_span_id(trace) if run else "",
        name=stage.name,
        start=began,
        end=ended,
        attributes=_attributes(parent, run, _told_of(end) | {"verdict": _verdict(status)}),
        error="" if end.succeeded else f"{stage.reason}: {stage.message}",
    )


def _told_of(end: StageEnd) -> dict[str, Value]:
    stage = end.stage
    return {
        "stage": stage.name,
        "candidate": stage.candidate,
        "inputHash": stage.input_hash,
        "digest": stage.digest,
        "attempt": end.attempt,
        "reused": stage.reused,
        "acceleratorSeconds": end.accelerator_seconds,
        "job": stage.job,
        "error": "" if end.succeeded else stage.reason,
    }


def _attributes(
    parent: ObservedObject, run: RunStatus | None, told: Mapping[str, Value]
) -> dict[str, Value]:
    """What is empty is left out; names of OpenTelemetry's conventions where there are some."""
    of_object: dict[str, Value] = {
        "k8s.namespace.name": parent.namespace,
        "lora.name": parent.name,
        "lora.uid": parent.uid,
        "lora.run": run.id if run else "",
    }
    ours = {_CONVENTIONAL.get(name, f"lora.{name}"): value for name, value in told.items()}
    return {name: value for name, value in (of_object | ours).items() if value != ""}


_CONVENTIONAL = {"job": "k8s.job.name", "error": "error.type"}


def _times(stage: StageStatus, otherwise: float) -> tuple[float, float]:
    ended = _seconds(stage.completed_at, otherwise)
    return min(_seconds(stage.started_at, ended), ended), ended


def _seconds(time: str, otherwise: float) -> float:
    seconds = epoch_seconds(time)
    return otherwise if seconds is None else seconds


def _ready(status: Status) -> Condition | None:
    return next((c for c in status.conditions if c.type == ConditionType.READY), None)


def _verdict(status: Status) -> str:
    return status.benchmark.verdict.value if status.benchmark else ""


def _run_span_id(trace: str) -> str:
    return _hashed(16, trace, RUN)


def _hashed(digits: int, *words: str) -> str:
    return hashlib.sha256(canonical_json(list(words))).hexdigest()[:digits]
