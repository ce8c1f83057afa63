"""One release on its way up: its Deployment, its pods, its verification.

    apply Deployment -> all pods Ready -> verify Job passes
                   |                  `-> refused: on record, then given up
                   `-> start deadline passed: on record, then given up

A release that was given up says so on its own Deployment, scaled to zero. What the Service selects
is never given up: there is nothing better to serve.
"""

from dataclasses import dataclass

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import Endpoint, Release, Stage, StageFailure, parse_outcome
from lora_api.naming import deployment_name
from lora_api.requests import verify_call
from lora_api.runtimes import SERVING_PORT
from lora_api.status import StageState, StageStatus
from lora_api.strategy import StrategyType
from lora_api.times import epoch_seconds, rfc3339, seconds_of
from lora_operator.actions import Action, ApplyDeployment, GiveUpRelease
from lora_operator.failures import (
    RETRY_HINT,
    STARTING,
    Cure,
    Trouble,
    hindrance_of,
    holdup_of,
)
from lora_operator.observed import ObservedDeployment, ObservedPod
from lora_operator.probing import follow_probe
from lora_operator.promotion import verification_key, was_refused
from lora_operator.step import Step, changed, pending_entry, remembered_trouble
from lora_operator.view import RUNNING_LOOK_SECONDS, SOON_SECONDS, View

TELLS_NOTHING_OF_THE_MODEL = (
    ConditionReason.OUT_OF_MEMORY,
    ConditionReason.STAGE_CRASHED,
    ConditionReason.STAGE_TIMED_OUT,
)


@dataclass(frozen=True)
class Wanted:
    """The release that the run has published.

    Attributes:
        release: What to serve.
        candidate: Name of its recipe.
        benchmark: Input hash of the benchmark whose recorded answers its pods must give.
    """

    release: Release
    candidate: str
    benchmark: str


@dataclass(frozen=True)
class BringUp:
    """How far the wanted release is.

    Attributes:
        actions: What to do for it.
        verify: Its verification as a stage; before there is a Job, its pods' coming up.
        is_verified: Its verification has passed in this very Deployment.
        is_ready: Every replica is Ready and runs what was last applied.
        is_scaling: It answers, and what is not Ready yet starts for the first time.
        waits_for: What it waits for, for people.
        trouble: What keeps it from serving.
    """

    actions: tuple[Action, ...] = ()
    verify: Step | None = None
    is_verified: bool = False
    is_ready: bool = False
    is_scaling: bool = False
    waits_for: str = ""
    trouble: Trouble | None = None


def bring_up(view: View, wanted: Wanted, target: ObservedDeployment | None) -> BringUp:
    """Look how far the wanted release is; `target` is the Deployment of its name."""
    release = wanted.release
    if target and not target.ours:
        return BringUp(trouble=name_conflict("Deployment", target.name))
    if target and target.deleting:
        return BringUp(waits_for=f"the former Deployment {target.name} to be gone")
    apply = ApplyDeployment(
        name=deployment_name(view.parent.name, release.id),
        release=release.id,
        digest=release.artifact,
        candidate=wanted.candidate,
        recipe=release.recipe,
        replicas=view.spec.serving.replicas,
        benchmark=wanted.benchmark,
    )
    if target is None:
        return BringUp((apply,), waits_for=f"the pods of release {release.id}")
    entry = _verify_entry(view, wanted, target)
    if target.gave_up:
        return _given_up(entry, target)
    if was_refused(view, target):
        return _lost_readiness(view, entry, target)
    if verification_key(target) in view.before.verified:
        return _verified_before(view, entry, target, apply)
    if _ends_here(view, entry) and not _is_selected(view, target):
        give_up = GiveUpRelease(target.name, target.uid, entry.reason)
        return BringUp((give_up,), Step(entry), trouble=remembered_trouble(entry))
    if not _all_ready(view, target) or not view.spec.serving.replicas:
        return _coming_up(view, entry, target, apply)
    return _verifying(view, wanted, target, apply)


def _verifying(view: View, wanted: Wanted, target: ObservedDeployment, apply: Action) -> BringUp:
    """All pods are Ready: ask each of them."""
    endpoints = [
        Endpoint(pod=p.name, url=f"http://{p.ip}:{SERVING_PORT}")
        for p in target.pods
        if p.ready and p.ip and not p.deleting
    ]
    request = view.requests.verify(wanted.release, wanted.benchmark, target.uid, endpoints)
    verify = follow_probe(view, request)
    return BringUp(
        actions=(apply, *verify.actions),
        verify=verify,
        is_verified=verify.succeeded,
        is_ready=True,
        waits_for=f"the verification of release {target.release}",
        trouble=verify.trouble,
    )


def _ends_here(view: View, entry: StageStatus) -> bool:
    """Whether the release itself was found wanting, not the Job that looked at it.

    With Recreate nothing answers while it is looked at, so that any failure ends it.
    """
    tells = entry.reason not in TELLS_NOTHING_OF_THE_MODEL
    recreates = view.spec.serving.strategy.type is StrategyType.RECREATE
    return entry.state is StageState.FAILED and (tells or recreates)


def _verified_before(
    view: View, entry: StageStatus, target: ObservedDeployment, apply: Action
) -> BringUp:
    is_ready = _all_ready(view, target)
    done = changed(entry, state=StageState.SUCCEEDED, next_try_at="", reason="")
    return BringUp(
        actions=(apply,),
        verify=Step(done, look_again_seconds=None if is_ready else RUNNING_LOOK_SECONDS),
        is_verified=True,
        is_ready=is_ready,
        is_scaling=not is_ready and _is_selected(view, target) and _is_scaling(target),
        waits_for="" if is_ready else _waits_for(view, target),
        trouble=None if is_ready else _pods_trouble(view, target),
    )


def _coming_up(
    view: View, entry: StageStatus, target: ObservedDeployment, apply: Action
) -> BringUp:
    """Pods that are not all Ready yet, within the deadline that runs from their first start."""
    waits_for = _waits_for(view, target)
    if entry.job:  # they were Ready once: the deadline is met, and a verification is under way
        step = Step(entry, look_again_seconds=RUNNING_LOOK_SECONDS)
        return BringUp((apply,), step, waits_for=waits_for, trouble=_pods_trouble(view, target))
    started = _first_start(entry, target)
    told = changed(entry, started_at=rfc3339(started) if started is not None else "")
    limit = seconds_of(view.spec.serving.strategy.start_deadline)
    is_late = started is not None and view.now - started > limit
    if is_late and not _is_selected(view, target):
        message = _deadline_message(view, target)
        trouble = Trouble(ConditionReason.START_DEADLINE_EXCEEDED, message, Cure.CHANGE)
        late = changed(told, state=StageState.FAILED, reason=str(trouble.reason), message=message)
        return BringUp(verify=Step(late, look_again_seconds=SOON_SECONDS), trouble=trouble)
    step = Step(told, look_again_seconds=RUNNING_LOOK_SECONDS)
    return BringUp((apply,), step, waits_for=waits_for, trouble=_pods_trouble(view, target))


def _lost_readiness(view: View, entry: StageStatus, target: ObservedDeployment) -> BringUp:
    """The Service went back from it: it is given up, now that it is not selected any more."""
    reason = ConditionReason.LOST_READINESS
    message = (
        f"release {target.release} lost pods within its bakeTime, so that the former release took "
        f"over again; see why its pods ended, then {RETRY_HINT}"
    )
    lost = changed(entry, state=StageState.FAILED, reason=str(reason), message=message)
    trouble = Trouble(reason, message, Cure.CHANGE)
    if _is_selected(view, target):  # by somebody's hand
        return BringUp(verify=Step(lost), trouble=trouble)
    give_up = GiveUpRelease(target.name, target.uid, reason)
    return BringUp((give_up,), Step(lost, look_again_seconds=SOON_SECONDS), trouble=trouble)


def _given_up(entry: StageStatus, target: ObservedDeployment) -> BringUp:
    """Kept at zero replicas as the memory of why."""
    remembered = entry.message if entry.state is StageState.FAILED else ""
    message = remembered or f"release {target.release} was given up; {RETRY_HINT}"
    told = changed(entry, state=StageState.FAILED, reason=target.gave_up, message=message)
    return BringUp(verify=Step(told), trouble=Trouble(target.gave_up, message, Cure.CHANGE))


def _all_ready(view: View, d: ObservedDeployment) -> bool:
    """Whether just the pods asked for are there, all Ready and of what was last applied.

    Pods are counted, for a Deployment's numbers mix old and new ones during a rolling update.
    """
    asked = view.spec.serving.replicas
    pods = [p for p in d.pods if not p.deleting and p.phase not in ("Failed", "Succeeded")]
    is_applied = d.observed_current and d.available and d.replicas == asked
    is_complete = d.updated_replicas == d.ready_replicas == len(pods) == asked
    return is_applied and is_complete and all(p.ready for p in pods)


def _is_scaling(d: ObservedDeployment) -> bool:
    """Whether pods answer and the missing ones are new: an autoscaler, an ordinary rolling update.

    A pod that has restarted, or cannot pull its image, is no newcomer.
    """
    pods = [p for p in d.pods if not p.deleting and p.phase not in ("Failed", "Succeeded")]
    coming = [p for p in pods if not p.ready]
    are_new = all(not p.restarts and p.waiting_reason in STARTING for p in coming)
    return are_new and len(coming) < len(pods) and d.ready_replicas > 0


def _is_selected(view: View, d: ObservedDeployment) -> bool:
    service = view.observed.service
    return service is not None and service.release == d.release


def _verify_entry(view: View, wanted: Wanted, target: ObservedDeployment) -> StageStatus:
    call = verify_call(wanted.release, wanted.benchmark, target.uid)
    return view.entry(Stage.VERIFY, call.input_hash) or pending_entry(call)


def _first_start(entry: StageStatus, target: ObservedDeployment) -> float | None:
    """When the first container of the candidate ran; remembered, for restarts move it on."""
    starts = [p.container_started_at for p in target.pods]
    known = [s for s in (epoch_seconds(entry.started_at), *starts) if s is not None]
    return min(known, default=None)


def _waits_for(view: View, d: ObservedDeployment) -> str:
    asked = view.spec.serving.replicas
    if not asked:
        return "a pod to verify; spec.serving.replicas is 0, raise it"
    hindrance = next((h for p in d.pods if (h := hindrance_of(p))), "")
    count = f"{d.ready_replicas}/{asked} are"
    waits_for = f"the pods of release {d.release} to be ready ({count})"
    return f"{waits_for}; {hindrance}" if hindrance else waits_for


def _pods_trouble(view: View, d: ObservedDeployment) -> Trouble | None:
    trouble = next((t for p in d.pods if (t := _pod_trouble(p))), None)
    if trouble and trouble.reason == ConditionReason.UNSCHEDULABLE:
        return _no_capacity(view, d) or trouble
    return trouble


def _no_capacity(view: View, d: ObservedDeployment) -> Trouble | None:
    """What is missing, where the scheduler says that something is short. No word on the model."""
    waiting = [p for p in d.pods if p.unschedulable and not p.deleting]
    said = next((p.unschedulable for p in waiting if "Insufficient" in p.unschedulable), "")
    if not said:
        return None
    asked = view.spec.serving.scheduling.resources
    resource = view.spec.serving.accelerator.resource
    each = ((asked and asked.limits) or {}).get(resource, "1")
    short = f"{len(waiting) * int(each)} more {resource}" if resource in said else "more room"
    message = (
        f"release {d.release} needs {short} for {len(waiting)} pods: {' '.join(said.split())[:400]}"
        "; free some, add nodes, or let the old release make room (serving.strategy.type: Recreate)"
    )
    return Trouble(ConditionReason.NO_CAPACITY, message, Cure.WORLD)


def _pod_trouble(pod: ObservedPod) -> Trouble | None:
    if pod.ready or pod.deleting:
        return None
    # The fetch init container says why it cannot get the model, as a stage program does.
    outcome = parse_outcome(pod.termination_message)
    if isinstance(outcome, StageFailure):
        return Trouble(str(outcome.failure), outcome.message, Cure.WORLD)
    return holdup_of(pod)


def _deadline_message(view: View, target: ObservedDeployment) -> str:
    deadline = view.spec.serving.strategy.start_deadline
    return (
        f"release {target.release} was not ready {deadline} after its first start: still waiting "
        f"for {_waits_for(view, target)}; see its pods' logs, raise "
        f"spec.serving.strategy.startDeadline or {RETRY_HINT}"
    )


def name_conflict(kind: str, name: str) -> Trouble:
    """Somebody else's object of our name: told, never touched."""
    message = (
        f"a {kind} {name} exists and is not owned by this object; delete it or rename the "
        f"object, then {RETRY_HINT}"
    )
    return Trouble(ConditionReason.NAME_CONFLICT, message, Cure.CHANGE)
