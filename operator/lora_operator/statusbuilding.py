"""The status of one look: everything but the conditions is arranged here from what was found."""

from collections.abc import Sequence

from lora_api.conditions import Condition, ConditionType
from lora_api.estimates import is_comparison
from lora_api.gates import (
    BASE,
    DYNAMIC,
    MERGED,
    OUTPUT_TOKENS_PER_SECOND,
    QUANTIZED,
    TASK_PERPLEXITY,
    WEIGHTS_BYTES,
    Measurements,
    MissingMeasurement,
    Verdict,
    at_concurrency,
    number,
)
from lora_api.jobcontract import Stage
from lora_api.layout import artifact as artifact_key
from lora_api.naming import release_selector
from lora_api.status import (
    MAX_RELEASES,
    ArtifactStatus,
    BenchmarkStatus,
    GateStatus,
    PinStatus,
    ReleaseStatus,
    ResultRow,
    RunStatus,
    ServingStatus,
    StageStatus,
    Status,
    Summary,
)
from lora_operator.collecting import kept
from lora_operator.failures import Trouble
from lora_operator.rollout import Rollout
from lora_operator.run import Run
from lora_operator.telling import (
    FALSE,
    TRUE,
    UNKNOWN,
    Findings,
    conditions_of,
    current_stages,
    phase_of,
)
from lora_operator.view import View, retry_token


def build_status(
    view: View, run: Run, rollout: Rollout, findings: Findings, trouble: Trouble | None
) -> Status:
    """The whole status after this look."""
    parent, before = view.parent, view.before
    ready = findings[ConditionType.READY]
    assert ready is not None  # it always has a meaning
    is_concluded = ready.status is not UNKNOWN
    conditions = conditions_of(before, findings, parent.generation, view.time)
    return Status(
        observed_generation=parent.generation if is_concluded else before.observed_generation,
        phase=phase_of(run, rollout, trouble),
        summary=_summary(view, run, "" if ready.status is TRUE else str(ready.reason)),
        conditions=conditions,
        last_handled_retry=retry_token(parent) or before.last_handled_retry,
        profile=view.profile,
        pins=_pins(run),
        image=run.resolution.image,
        run=_run_status(view, run, _ready_since(conditions) if is_concluded else ""),
        stages=_stages(view, run, rollout),
        benchmark=_benchmark(view, run),
        artifact=_artifact(view, run),
        serving=_serving(view, rollout),
        verified=list(rollout.verified),
        releases=_releases(view, run),
    )


def _pins(run: Run) -> list[PinStatus]:
    return [
        PinStatus(source=name, uri=pin.uri, revision=pin.revision[:128], digest=pin.digest)
        for name, pin in run.resolution.pins.items()
    ]


def _stages(view: View, run: Run, rollout: Rollout) -> list[StageStatus]:
    """The stages of the run. Before the line is known, and under a pin, the last ones are kept."""
    current = list(current_stages(run, rollout))
    if run.line is None or run.pin:
        known = {(e.name, e.input_hash) for e in current}
        current += [
            e
            for e in view.entries
            if e.name != Stage.RESOLVE and (e.name, e.input_hash) not in known
        ]
    return current


def _summary(view: View, run: Run, reason: str) -> Summary:
    measured: Measurements = run.line.measurements if run.line else {}
    served = run.line.served if run.line else QUANTIZED
    judgement = run.line.judgement if run.line else None
    speed = at_concurrency(OUTPUT_TOKENS_PER_SECOND, 1)
    service = view.observed.service
    return Summary(
        gates=judgement.summary if judgement else "",
        quality=_change(measured, TASK_PERPLEXITY, QUANTIZED, MERGED),
        size=_change(measured, WEIGHTS_BYTES, served, BASE, digits=0),
        speed=_change(measured, speed, served, BASE, digits=0),
        release=service.release if service and service.ours else "",
        reason=reason,
    )


def _change(
    measurements: Measurements, metric: str, condition: str, against: str, digits: int = 1
) -> str:
    """One condition relative to another; empty while a number is missing."""
    try:
        before = number(measurements, metric, against)
        change = number(measurements, metric, condition) / before - 1
        return f"{float(change) * 100:+.{digits}f}%"
    except MissingMeasurement:
        return ""


def _ready_since(conditions: Sequence[Condition]) -> str:
    return next(c.last_transition_time for c in conditions if c.type == ConditionType.READY)


def _run_status(view: View, run: Run, concluded_at: str) -> RunStatus | None:
    """The run; a pin's release may serve long before the run that it is in the way of goes on.

    Args:
        view: The look.
        run: How far it is.
        concluded_at: Since when Ready is decided; empty while it is not.
    """
    if run.line is None:
        return None
    before = view.before.run
    goes_on = before is not None and before.id == run.id and not _begins_again(view)
    started_at = before.started_at if before and goes_on else _started_at(view, run)
    completed_at = before.completed_at if before and goes_on else ""
    if concluded_at and not completed_at and not run.pin:
        completed_at = max(concluded_at, started_at)  # an earlier run may have made it ready
    stage = (run.stage.entry,) if run.stage else ()
    return RunStatus(
        id=run.id,
        candidate=run.line.candidate,
        started_at=started_at,
        completed_at=completed_at,
        accelerator_seconds=sum(
            e.accelerator_seconds for e in (*run.finished, *stage) if not e.reused
        ),
    )


def _begins_again(view: View) -> bool:
    """Whether a run that could not go on by itself is tried again with this look."""
    before = view.before
    has_failed = bool(before.run and before.run.completed_at) and any(
        c.type == ConditionType.READY and c.status is FALSE for c in before.conditions
    )
    return has_failed and view.starts_afresh


def _started_at(view: View, run: Run) -> str:
    """With the resolve that told what the run is; now, where none was needed for that."""
    step = run.resolution.step
    return step.entry.started_at if step.result else view.time


def _benchmark(view: View, run: Run) -> BenchmarkStatus | None:
    judgement = run.line.judgement if run.line else None
    if run.line is None or judgement is None:
        return None
    rows = [
        ResultRow(
            metric=metric,
            base=by_condition.get(BASE, ""),
            dynamic=by_condition.get(DYNAMIC, ""),
            merged=by_condition.get(MERGED, ""),
            quantized=by_condition.get(QUANTIZED, ""),
        )
        for metric, by_condition in sorted(run.line.measurements.items())
        if not is_comparison(metric)
    ]
    gates = [
        GateStatus(
            name=g.name,
            observed=g.observed,
            interval=g.interval,
            limit=g.limit,
            mode=g.mode,
            verdict=g.verdict,
            message=g.message,
        )
        for g in judgement.gates
    ]
    return BenchmarkStatus(
        verdict=judgement.verdict,
        results=rows[:64],
        gates=gates,
        report_uri=run.report_uri,
    )


def _artifact(view: View, run: Run) -> ArtifactStatus | None:
    digest = run.line.artifact if run.line else ""
    if not digest:
        return None
    store = view.requests.store
    uri = f"{store.uri.rstrip('/')}/{store.scope}/{artifact_key(digest)}"
    return ArtifactStatus(uri=uri, digest=digest)


def _serving(view: View, rollout: Rollout) -> ServingStatus | None:
    selected, target = rollout.selected, rollout.target
    service, parent = view.observed.service, view.parent
    if service is None and target is None:
        return None
    comes_up = target is not None and not (service and service.release == target.release)
    url = f"http://{parent.name}.{parent.namespace}.svc:{view.spec.serving.service.port}/v1"
    return ServingStatus(
        release=service.release if service and service.ours else "",
        digest=selected.digest if selected else "",
        candidate=target.release if target and comes_up and not target.gave_up else "",
        url=url if service and service.ours else "",
        replicas=selected.replicas if selected else 0,
        ready_replicas=selected.ready_replicas if selected else 0,
        selector=_selector(parent.name, selected.release) if selected else "",
        image=str(selected.recipe.get("image", "")) if selected else "",
    )


def _selector(name: str, release: str) -> str:
    return ",".join(f"{key}={value}" for key, value in release_selector(name, release).items())


def _releases(view: View, run: Run) -> list[ReleaseStatus]:
    """Newest first, without those that were collected. One that comes back keeps its number."""
    stays = kept(view) if run.collect and run.collect.succeeded else None
    known = [r for r in view.before.releases if stays is None or r.id in stays]
    wanted = run.wanted
    if wanted is None or any(r.id == wanted.release.id for r in known):
        return known
    release = wanted.release
    new = ReleaseStatus(
        id=release.id,
        number=max((r.number for r in known), default=0) + 1,
        digest=release.artifact,
        verdict=Verdict.PASSED,
        created_at=view.time,
    )
    return [new, *known][:MAX_RELEASES]
