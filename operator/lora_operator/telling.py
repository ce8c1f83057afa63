"""What status and events say: one finding per condition, from one look at run and rollout.

Unfinished is Unknown, not False. Ready is True only when what this generation asks for is what
serves. Events are posted at transitions only, with the condition's reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_api.conditions import (
    Condition,
    ConditionReason,
    ConditionStatus,
    ConditionType,
    set_condition,
)
from lora_api.gates import MERGED, GateResult, Judgement, Verdict
from lora_api.jobcontract import Stage
from lora_api.status import Phase, StageState, StageStatus, Status
from lora_operator.actions import EmitEvent
from lora_operator.failures import Cure, Trouble
from lora_operator.observed import Observed
from lora_operator.rollout import Rollout
from lora_operator.run import Run

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

_STAGE_CONDITIONS = {
    Stage.RESOLVE: ConditionType.RESOLVED,
    Stage.MERGE: ConditionType.MERGED,
    Stage.QUANTIZE: ConditionType.QUANTIZED,
    Stage.EVALUATE: ConditionType.EVALUATED,
    Stage.BENCHMARK: ConditionType.BENCHMARKED,
    Stage.PUBLISH: ConditionType.PUBLISHED,
    Stage.VERIFY: ConditionType.VERIFIED,
}
_PHASES = {
    Stage.RESOLVE: Phase.RESOLVING,
    Stage.MERGE: Phase.MERGING,
    Stage.QUANTIZE: Phase.QUANTIZING,
    Stage.EVALUATE: Phase.EVALUATING,
    Stage.BENCHMARK: Phase.BENCHMARKING,
    Stage.REPORT: Phase.PUBLISHING,
    Stage.PUBLISH: Phase.PUBLISHING,
    Stage.VERIFY: Phase.VERIFYING,
    Stage.RECALL: Phase.RESOLVING,
    Stage.COLLECT: Phase.SERVING,
}
_REJECTIONS = {
    Verdict.FAILED: ConditionReason.GATES_FAILED,
    Verdict.ERROR: ConditionReason.GATES_ERROR,
    Verdict.INCONCLUSIVE: ConditionReason.GATES_INCONCLUSIVE,
}
_EXPECTED = (
    ConditionReason.PROGRESSING,
    ConditionReason.BAKING,
    ConditionReason.WAITING_FOR_PODS,
)
_SUSPENSION = Trouble(
    ConditionReason.SUSPENDED,
    "no stage runs while spec.suspend is true; what serves stays. Set it to false to go on",
    Cure.TIME,
)


@dataclass(frozen=True)
class Finding:
    """What one condition says."""

    status: ConditionStatus
    reason: str
    message: str = ""


Findings = Mapping[ConditionType, Finding | None]
"""None: the condition has no meaning for this generation and is left out."""
PENDING = Finding(UNKNOWN, ConditionReason.PENDING)


def findings_of(observed: Observed, run: Run, rollout: Rollout) -> Findings:
    """All conditions."""
    trouble = trouble_of_all(run, rollout)
    entries = {e.name: e for e in current_stages(run, rollout)}
    stages: dict[ConditionType, Finding | None] = {
        condition: _stage_finding(entries.get(stage))
        for stage, condition in _STAGE_CONDITIONS.items()
    }
    if run.line and run.line.served == MERGED and Stage.QUANTIZE not in entries:
        stages[ConditionType.QUANTIZED] = None  # method None: nothing will ever be quantized
    if run.pin and run.wanted:
        on_record = f"release {run.pin.release} is on record and pinned"
        stages[ConditionType.PUBLISHED] = Finding(TRUE, ConditionReason.SUCCEEDED, on_record)
    return {
        ConditionType.READY: _ready(run, rollout, trouble),
        ConditionType.AVAILABLE: available(observed, trouble),
        **_kstatus(rollout, trouble),
        **stages,
        ConditionType.GATES_PASSED: _gates_passed(run),
    }


def stalled_findings(observed: Observed, trouble: Trouble) -> Findings:
    """The conditions when nothing of the spec can be followed."""
    return {
        ConditionType.READY: Finding(FALSE, trouble.reason, trouble.message),
        ConditionType.AVAILABLE: available(observed, trouble),
        **_kstatus(None, trouble),
    }


def trouble_of_all(run: Run, rollout: Rollout) -> Trouble | None:
    """The first thing in the way of this generation, in the order of the run."""
    if run.pin:
        pinned = [_SUSPENSION if run.is_suspended else None, *(s.trouble for s in run.steps)]
        return next((t for t in (*pinned, rollout.trouble) if t), None)
    # A resolve that nothing waits for any more may fail in peace.
    candidates = [
        _SUSPENSION if run.is_suspended else None,
        None if run.knows_its_work else run.resolution.step.trouble,
        run.stage.trouble if run.stage else None,
        _rejection(run),
        run.publish.trouble if run.publish else None,
        rollout.trouble,
    ]
    return next((t for t in candidates if t), None)


def current_stages(run: Run, rollout: Rollout) -> tuple[StageStatus, ...]:
    """The stages of this run as status lists them, in their order."""
    verify = rollout.bring_up.verify
    recall = run.pin.step if run.pin else None
    steps = (run.stage, run.report, run.publish, recall, verify, run.collect)
    later = tuple(s.entry for s in steps if s)
    return (run.resolution.step.entry, *run.finished, *later)


def phase_of(run: Run, rollout: Rollout, trouble: Trouble | None) -> Phase:
    """Where the object is, for people."""
    if run.is_suspended:
        return Phase.SUSPENDED
    if rollout.serves:
        return Phase.SERVING
    if trouble and trouble.is_stalled:
        return Phase.REJECTED if _rejection(run) == trouble else Phase.STALLED
    if trouble:
        return Phase.WAITING
    if rollout.wanted:
        return Phase.VERIFYING if rollout.bring_up.is_ready else Phase.ROLLING_OUT
    unfinished = (s.entry for s in reversed(run.steps) if not s.succeeded)
    return next((_PHASES[Stage(e.name)] for e in unfinished), Phase.PUBLISHING)


def conditions_of(
    before: Status, findings: Findings, generation: int, time: str
) -> list[Condition]:
    """The condition list: known types that nothing is said of are Unknown from the first visit."""
    left_out = {kind for kind, finding in findings.items() if finding is None}
    conditions = [c for c in before.conditions if c.type not in left_out]
    known = {c.type for c in conditions} | left_out
    for kind in ConditionType:
        finding = findings.get(kind)
        if finding is None and kind in known:
            continue
        f = finding or PENDING
        conditions = set_condition(
            conditions, kind, f.status, f.reason, f.message, generation, time
        )
    return conditions


def events_of(before: Status, findings: Findings) -> tuple[EmitEvent, ...]:
    """One event a transition of (status, reason); what several conditions say alike, once."""
    old = {c.type: (c.status, c.reason) for c in before.conditions}
    events = {
        (f.reason, f.message): EmitEvent(_event_type(kind, f), str(f.reason), f.message)
        for kind, f in findings.items()
        if f is not None
        and _is_telling(kind, f)
        and old.get(kind, (UNKNOWN, ConditionReason.PENDING)) != (f.status, f.reason)
    }
    return tuple(events.values())


def available(observed: Observed, trouble: Trouble | None) -> Finding:
    """Whether some gated release answers: what the Service selects has a Ready pod."""
    service = observed.service
    if service is None or not service.ours:
        given_up = trouble is not None and trouble.is_stalled
        return Finding(
            FALSE if given_up else UNKNOWN, ConditionReason.NO_RELEASE, "no release serves yet"
        )
    for d in observed.deployments:
        if d.release == service.release and d.ours and d.ready_replicas:
            return Finding(TRUE, ConditionReason.SERVING, f"release {d.release} answers")
    message = f"no pod of release {service.release} is ready"
    return Finding(FALSE, ConditionReason.WAITING_FOR_PODS, message)


def _ready(run: Run, rollout: Rollout, trouble: Trouble | None) -> Finding:
    target = rollout.target
    if rollout.serves and target:
        message = (
            f"release {target.release} ({target.digest[:19]}) serves on "
            f"{target.ready_replicas}/{target.replicas} pods"
        )
        return Finding(TRUE, ConditionReason.SERVING, message)
    if trouble:
        return Finding(FALSE if trouble.is_stalled else UNKNOWN, trouble.reason, trouble.message)
    if rollout.wanted and not rollout.bring_up.is_ready:
        message = f"waiting for {rollout.bring_up.waits_for}"
        return Finding(UNKNOWN, ConditionReason.WAITING_FOR_PODS, message)
    phase = phase_of(run, rollout, trouble)
    return Finding(UNKNOWN, ConditionReason.PROGRESSING, f"{phase}: not finished yet")


def _kstatus(rollout: Rollout | None, trouble: Trouble | None) -> dict[ConditionType, Finding]:
    """Reconciling and Stalled: abnormal-true, and never both."""
    settled = Finding(FALSE, ConditionReason.SETTLED)
    if rollout and rollout.serves:
        settling = _settling(rollout) or settled
        return {ConditionType.RECONCILING: settling, ConditionType.STALLED: settled}
    if trouble and trouble.is_stalled:
        stalled = Finding(TRUE, trouble.reason, trouble.message)
        return {ConditionType.RECONCILING: settled, ConditionType.STALLED: stalled}
    if trouble == _SUSPENSION:
        held = Finding(FALSE, trouble.reason, trouble.message)
        return {ConditionType.RECONCILING: held, ConditionType.STALLED: settled}
    progressing = Finding(FALSE, ConditionReason.PROGRESSING)
    reconciling = Finding(
        TRUE,
        trouble.reason if trouble else ConditionReason.PROGRESSING,
        trouble.message if trouble else "",
    )
    return {ConditionType.RECONCILING: reconciling, ConditionType.STALLED: progressing}


def _settling(rollout: Rollout) -> Finding | None:
    """What still moves though what is asked for serves: pods, or the time of a promotion."""
    up, promotion = rollout.bring_up, rollout.promotion
    if not up.is_ready:
        reason = rollout.trouble.reason if rollout.trouble else ConditionReason.WAITING_FOR_PODS
        message = rollout.trouble.message if rollout.trouble else f"waiting for {up.waits_for}"
        return Finding(TRUE, reason, message)
    if promotion.bakes_until and promotion.kept:
        message = (
            f"release {promotion.kept.release} is kept until {promotion.bakes_until} and takes "
            "over again if pods are lost"
        )
        return Finding(TRUE, ConditionReason.BAKING, message)
    return None


def _stage_finding(entry: StageStatus | None) -> Finding:
    if entry is None:
        return PENDING
    match entry.state:
        case StageState.SUCCEEDED if entry.reused:
            return Finding(TRUE, ConditionReason.REUSED, f"{entry.name}: the store had the result")
        case StageState.SUCCEEDED:
            message = f"{entry.name}: {entry.message}" if entry.message else f"{entry.name} is done"
            return Finding(TRUE, ConditionReason.SUCCEEDED, message)
        case StageState.FAILED:
            return Finding(FALSE, entry.reason, entry.message)
        case StageState.RUNNING if not entry.reason:
            return Finding(UNKNOWN, ConditionReason.RUNNING, f"Job {entry.job}")
    return Finding(UNKNOWN, entry.reason or ConditionReason.PENDING, entry.message)


def _gates_passed(run: Run) -> Finding:
    judgement = run.line.judgement if run.line else None
    if judgement is None:
        return PENDING
    if judgement.verdict is Verdict.PASSED:
        accepted = ", ".join(g.name for g in judgement.gates if g.accepted)
        but = f"; accepted by spec.overrides: {accepted}" if accepted else ""
        message = f"{judgement.summary} gates passed{but}"
        return Finding(TRUE, ConditionReason.GATES_PASSED, message)
    rejection = _rejection(run)
    assert rejection is not None  # judged, and not passed
    return Finding(FALSE, rejection.reason, rejection.message)


def _rejection(run: Run) -> Trouble | None:
    judgement = run.line.judgement if run.line else None
    if judgement is None or judgement.verdict is Verdict.PASSED:
        return None
    reason = _REJECTIONS.get(judgement.verdict, ConditionReason.GATES_ERROR)
    return Trouble(reason, _rejection_message(judgement), Cure.CHANGE)


def _rejection_message(judgement: Judgement) -> str:
    failed = "; ".join(_gate_line(g) for g in judgement.failed) or "no enforced gate applies"
    return (
        f"{failed}. What served before serves on; correct the adapter, add a candidate recipe, "
        "change spec.gates or accept it for this artifact in spec.overrides"
    )


def _gate_line(gate: GateResult) -> str:
    limit = f"limit {gate.limit}"
    observed = f"{gate.observed} {gate.interval}".strip()
    seen = f"{observed} ({limit})" if observed else limit
    why = f": {gate.message}" if gate.message else ""
    return f"{gate.name} {gate.verdict} {seen}{why}"


def _is_telling(kind: ConditionType, finding: Finding) -> bool:
    """Whether a transition to this is worth an event."""
    if kind is ConditionType.STALLED:
        return finding.status is TRUE
    if kind is ConditionType.RECONCILING:
        return finding.status is TRUE and finding.reason not in _EXPECTED
    if kind is ConditionType.AVAILABLE:
        return False
    return finding.status is not UNKNOWN


def _event_type(kind: ConditionType, finding: Finding) -> str:
    good = finding.status is TRUE
    abnormal = kind in (ConditionType.RECONCILING, ConditionType.STALLED)
    return "Normal" if good and not abnormal else "Warning"
