"""Why a stage Job does not go on: a typed reason, what to do about it, and whether waiting helps.

    Trouble  stalled   only a change of the object helps (or the retry annotation)
             waiting   the world must change: tried again at a back-off
             held up   the Job's pod cannot start yet: shown, never a failure, no time limit runs

Judged from the Job's conditions, its pods and the result document; never from a pod's phase.
"""

from dataclasses import dataclass
from enum import StrEnum

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import ExitCode, StageFailure
from lora_api.spec import Spec
from lora_api.times import seconds_of
from lora_operator.observed import ObservedJob, ObservedPod

RETRY_HINT = "change the object or set the annotation lora-operator.dev/retry-requested-at"

_PULL_FAILURES = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})


class Cure(StrEnum):
    """What makes a trouble go away."""

    CHANGE = "change"  # Stalled
    TIME = "time"  # Waiting: tried again at a back-off
    WORLD = "world"  # held up: Kubernetes itself goes on trying


@dataclass(frozen=True)
class Trouble:
    """One reason why the object does not go on.

    Attributes:
        reason: A condition's reason.
        message: What is wrong and what to do, in one line.
        cure: What makes it go away.
    """

    reason: str
    message: str
    cure: Cure

    @property
    def is_stalled(self) -> bool:
        """Whether only a change of the object helps."""
        return self.cure is Cure.CHANGE


def failure_of(job: ObservedJob, spec: Spec, now: float) -> Trouble | None:
    """Why a Job failed, or must be ended though it still runs; None while it may go on."""
    last = job.pods[-1] if job.pods else None
    if isinstance(job.outcome, StageFailure) and (job.failed or _has_ended(last)):
        waits = last is not None and last.exit_code == ExitCode.WAITING
        cure = Cure.TIME if waits else Cure.CHANGE
        return Trouble(str(job.outcome.failure), job.outcome.message, cure)
    if any(p.terminated_reason == "OOMKilled" for p in job.pods):
        return _out_of_memory(job, spec)
    if job.failed_reason == "DeadlineExceeded" or _has_timed_out(job, spec, now):
        return _timed_out(job, spec)
    return _crashed(job, last) if job.failed else None


def queue_of(job: ObservedJob) -> Trouble | None:
    """Who holds a Job back before it has a pod, or has taken its pod away."""
    if not job.suspended:
        return None
    if job.queue:
        detail = _line(job.queue_says) or "`kubectl get workloads` says why"
        message = f"Job {job.name} waits in queue {job.queue}: {detail}"
    else:
        message = f"Job {job.name} is suspended, and not by the operator; resume it, or delete it"
    return Trouble(ConditionReason.QUEUED, message, Cure.WORLD)


def holdup_of(pod: ObservedPod | None) -> Trouble | None:
    """Why a pod cannot start yet."""
    if pod is None or pod.deleting:
        return None
    if pod.unschedulable:
        return Trouble(
            ConditionReason.UNSCHEDULABLE,
            f"pod {pod.name} waits for a node: {_line(pod.unschedulable)}",
            Cure.WORLD,
        )
    if pod.waiting_reason in _PULL_FAILURES:
        detail = _line(pod.waiting_message) or pod.waiting_reason
        return Trouble(
            ConditionReason.IMAGE_PULL_FAILED,
            f"pod {pod.name} cannot pull its image: {detail}; correct the image or the pull secret",
            Cure.WORLD,
        )
    return None


def hindrance_of(pod: ObservedPod | None) -> str:
    """What a pod that is neither running nor in a typed hold-up waits for; empty when nothing."""
    if pod is None or pod.waiting_reason in STARTING:
        return ""
    return f"pod {pod.name}: {pod.waiting_reason} {_line(pod.waiting_message)}".strip()


def _has_ended(pod: ObservedPod | None) -> bool:
    return pod is not None and pod.exit_code in (ExitCode.REFUSED, ExitCode.WAITING)


def _out_of_memory(job: ObservedJob, spec: Spec) -> Trouble:
    resources = spec.jobs.for_stage(job.stage)[0].resources
    limit = (resources.limits or {}).get("memory", "") if resources else ""
    at = f"at its limit of {limit}" if limit else "at its default limit"
    return Trouble(
        ConditionReason.OUT_OF_MEMORY,
        f"{job.stage} was killed for memory {at}; raise resources.limits.memory of "
        f'the stage in spec.jobs.stages (name: {job.stage}, under "scheduling")',
        Cure.CHANGE,
    )


def _has_timed_out(job: ObservedJob, spec: Spec, now: float) -> bool:
    """From the container's start, so that a queue is never a failure."""
    limit = seconds_of(spec.jobs.for_stage(job.stage)[1])
    return not job.complete and any(
        p.exit_code is None
        and p.container_started_at is not None
        and now - p.container_started_at > limit
        for p in job.pods
    )


def _timed_out(job: ObservedJob, spec: Spec) -> Trouble:
    limit = spec.jobs.for_stage(job.stage)[1]
    return Trouble(
        ConditionReason.STAGE_TIMED_OUT,
        f"{job.stage} ran longer than {limit}; raise spec.jobs.stages (name: {job.stage}) "
        "timeout, or spec.jobs.defaults.timeout",
        Cure.CHANGE,
    )


def _crashed(job: ObservedJob, last: ObservedPod | None) -> Trouble:
    lines = [line for line in job.log_tail.splitlines() if line.strip()]
    code = f" with exit code {last.exit_code}" if last and last.exit_code is not None else ""
    detail = _line(lines[-1]) if lines else _line(job.failed_reason) or "it left no log"
    return Trouble(
        ConditionReason.STAGE_CRASHED,
        f"{job.stage} crashed{code}: {detail}; see the log of Job {job.name}, then {RETRY_HINT}",
        Cure.CHANGE,
    )


def _line(text: str) -> str:
    """One bounded line."""
    return " ".join(text.split())[:400]
