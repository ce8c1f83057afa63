"""What an object's status says, put in order for people. Pure: the clock is handed in."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from lora_api.base import ApiModel
from lora_api.conditions import Condition, ConditionStatus, ConditionType
from lora_api.gates import Verdict
from lora_api.gatespec import GateMode, GateName
from lora_api.jobcontract import OCCASIONAL_STAGES, Stage
from lora_api.retention import kept_releases
from lora_api.runbooks import RUNBOOKS
from lora_api.status import (
    GateStatus,
    Phase,
    ReleaseStatus,
    ServingStatus,
    StageState,
    StageStatus,
    Status,
)
from lora_api.times import epoch_seconds
from lora_cli.changes import ACCEPTABLE

NOT_STARTED = "NotStarted"
_REFUSING = (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR)
_ENDED = (Phase.SERVING, Phase.REJECTED, Phase.STALLED)


class UnreadableStatus(Exception):
    """The status was written by an operator that says things we do not know."""


class StageLine(ApiModel):
    """One stage of the run."""

    name: str
    candidate: str = ""
    state: str
    seconds: int | None = None
    """How long it took, or runs by now."""
    accelerator_seconds: int = 0
    """Accelerators times seconds that they were held, all attempts together."""
    progress: str = ""
    eta_seconds: int | None = None
    job: str = ""
    reused: bool = False
    reason: str = ""
    message: str = ""


class Story(ApiModel):
    """The object on one screen."""

    name: str
    namespace: str
    generation: int
    is_seen: bool
    """Whether the operator has looked at this generation."""
    phase: str
    ready: str
    reason: str = ""
    message: str = ""
    next_steps: list[str] = []
    """What to do, or what will happen by itself; commands can be typed as they are."""
    stages: list[StageLine] = []
    accelerator_seconds: int = 0
    """Of the run: what was reused cost this object nothing."""
    verdict: str = ""
    gates: list[GateStatus] = []
    report_uri: str = ""
    serving: ServingStatus | None = None


def status_of(document: Mapping[str, Any]) -> Status:
    """The object's status; fields that this version does not know are left out.

    Raises:
        UnreadableStatus: It holds words that this version does not know.
    """
    try:
        return Status.model_validate(document.get("status") or {}, extra="ignore")
    except ValidationError as error:
        raise UnreadableStatus(
            "this plugin is older than the operator and cannot read the status; upgrade it"
            f" ({error.errors()[0]['loc']})"
        ) from error


def story_of(document: Mapping[str, Any], now: float) -> Story:
    """All that matters of one object.

    Args:
        document: The LoRADeployment as the API server has it.
        now: Seconds since the epoch.

    Raises:
        UnreadableStatus: It was written by a newer operator.
    """
    status, metadata = status_of(document), document["metadata"]
    conditions = {c.type: c for c in status.conditions}
    ready = conditions.get(ConditionType.READY)
    reconciling = conditions.get(ConditionType.RECONCILING)
    is_seen = reconciling is not None and reconciling.observed_generation == metadata["generation"]
    told = _what_decides(ready, reconciling)
    measured = status.benchmark
    return Story(
        name=metadata["name"],
        namespace=metadata["namespace"],
        generation=metadata["generation"],
        is_seen=is_seen,
        phase=status.phase,
        ready=ready.status if ready else ConditionStatus.UNKNOWN,
        reason=told.reason if told else "",
        message=told.message if told else "",
        next_steps=list(_next_steps(metadata["name"], status, told, is_seen, now)),
        stages=[*_lines(status, now)],
        accelerator_seconds=status.run.accelerator_seconds if status.run else 0,
        verdict=measured.verdict if measured else "",
        gates=measured.gates if measured else [],
        report_uri=measured.report_uri if measured else "",
        serving=status.serving,
    )


def log_of(status: Status, stage: str) -> StageStatus | None:
    """The stage whose log is meant: by name the newest, else what runs, failed or ran last."""
    named = [s for s in status.stages if not stage or s.name == stage]
    with_job = [s for s in named if s.job]
    for state in (StageState.RUNNING, StageState.FAILED, StageState.WAITING):
        for entry in reversed(with_job):
            if entry.state is state:
                return entry
    candidates = with_job or named
    return candidates[-1] if candidates else None


def acceptable_gates(status: Status) -> list[str]:
    """The gates whose acceptance would let the artifact serve; none where one is an Error."""
    judged = status.benchmark.gates if status.benchmark else []
    bad = [g for g in judged if g.mode is GateMode.ENFORCE and g.verdict in _REFUSING]
    can_be = all(g.verdict in ACCEPTABLE and g.name in {*GateName} for g in bad)
    return [g.name for g in bad] if can_be else []


def releases_of(status: Status) -> list[tuple[ReleaseStatus, bool]]:
    """The releases, newest first, and whether each is the one that serves."""
    serving = status.serving.release if status.serving else ""
    return [(r, r.id == serving) for r in status.releases]


def kept_of(
    spec: Mapping[str, Any], status: Status, keep: int | None = None
) -> list[tuple[ReleaseStatus, str]]:
    """The releases, newest first, and why each stays in the bucket; empty for what goes.

    Args:
        spec: As it is.
        status: The object's.
        keep: In place of `artifact.keepReleases`.
    """
    keep = keep if keep is not None else spec.get("artifact", {}).get("keepReleases")
    serving = status.serving
    used = {
        "serves": serving.release if serving else "",
        "comes up": serving.candidate if serving else "",
        "pinned": spec.get("serving", {}).get("pin", ""),
    }
    ids = [r.id for r in status.releases]
    newest = set(ids) if keep is None else set(kept_releases(ids, keep, ()))
    why = {i: "kept, nothing is ever removed" if keep is None else "newest" for i in newest}
    why |= {release: word for word, release in used.items() if release}
    return [(r, why.get(r.id, "")) for r in status.releases]


def _what_decides(ready: Condition | None, reconciling: Condition | None) -> Condition | None:
    """Reconciling tells what is to be cured while what serves stays Ready: no right, no node."""
    return reconciling if reconciling and _wants_a_cure(reconciling) else ready


def _wants_a_cure(told: Condition) -> bool:
    """Whether something is in the way that somebody has to move."""
    is_abnormal = told.type == ConditionType.RECONCILING
    is_in_the_way = (told.status is ConditionStatus.TRUE) is is_abnormal
    entry = RUNBOOKS.get(told.reason)
    return is_in_the_way and (entry is None or bool(entry.fix))


def _next_steps(
    name: str, status: Status, told: Condition | None, is_seen: bool, now: float
) -> Iterator[str]:
    if not is_seen:
        yield (
            "the operator has not looked at this generation yet; if that lasts, see whether it "
            "runs: kubectl get pods -A -l app.kubernetes.io/name=lora-operator"
        )
        return
    if status.phase is Phase.SUSPENDED:
        yield f"go on: kubectl lora resume {name}"
        return
    if told is None or (told.type == ConditionType.READY and told.status is ConditionStatus.TRUE):
        return
    if status.phase is Phase.REJECTED:
        yield f"see what was measured: kubectl lora report {name}"
    if _wants_a_cure(told):
        yield f"what {told.reason} means and how to fix it: kubectl lora explain {told.reason}"
    waits = [e for s in status.stages if (e := epoch_seconds(s.next_try_at)) is not None]
    if waits:
        wait = duration(max(0, round(min(waits) - now)))
        yield f"it is tried again by itself in {wait}; at once: kubectl lora retry {name}"
    elif status.phase is Phase.STALLED:
        yield f"change the object, or, once the cause elsewhere is gone: kubectl lora retry {name}"
    elif status.phase is Phase.REJECTED:
        for gate in acceptable_gates(status):
            yield f"or, for this artifact alone: kubectl lora approve {name} {gate} --reason TEXT"


def _lines(status: Status, now: float) -> Iterator[StageLine]:
    seen = set()
    for entry in status.stages:
        seen.add(entry.name)
        yield _line(entry, now)
    if status.phase not in _ENDED:
        for stage in Stage:
            if stage not in seen and stage not in OCCASIONAL_STAGES:
                yield StageLine(name=stage, state=NOT_STARTED)


def _line(entry: StageStatus, now: float) -> StageLine:
    progress = entry.progress
    return StageLine(
        name=entry.name,
        candidate=entry.candidate,
        state=entry.state,
        seconds=_seconds(entry, now),
        accelerator_seconds=0 if entry.reused else entry.accelerator_seconds,
        progress=f"{progress.done}/{progress.total} {progress.unit}" if progress else "",
        eta_seconds=progress.eta_seconds if progress else None,
        job=entry.job,
        reused=entry.reused,
        reason=entry.reason,
        message=entry.message,
    )


def _seconds(entry: StageStatus, now: float) -> int | None:
    started, completed = epoch_seconds(entry.started_at), epoch_seconds(entry.completed_at)
    if started is None or entry.state is StageState.PENDING:
        return None
    ended = completed if completed is not None else now
    return max(0, round(ended - started))


def duration(seconds: int) -> str:
    """`45s`, `9m 10s`, `12m`, `1h 30m`: two numbers at most."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    if minutes:
        return f"{minutes}m {rest}s" if rest and minutes < 10 else f"{minutes}m"
    return f"{rest}s"
