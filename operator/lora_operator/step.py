"""One stage as a plan sees it: what status will say of it, what to do, and what is in the way."""

from dataclasses import dataclass
from typing import Any

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import WORKING_STAGES, StageCall, StageResult
from lora_api.status import ProgressStatus, StageState, StageStatus
from lora_api.times import rfc3339
from lora_operator.actions import Action
from lora_operator.failures import Cure, Trouble, failure_of, hindrance_of, holdup_of, queue_of
from lora_operator.observed import ObservedJob
from lora_operator.view import RUNNING_LOOK_SECONDS, View

_HOLDUPS = (
    ConditionReason.IMAGE_PULL_FAILED,
    ConditionReason.UNSCHEDULABLE,
    ConditionReason.QUEUED,
)


@dataclass(frozen=True)
class Step:
    """What one look at a stage found.

    Attributes:
        entry: The stage in status.
        actions: What to do about it.
        trouble: What keeps it from going on.
        look_again_seconds: When to look even if nothing happens.
        result: Its result, in the very look that took it.
        asks_store: The store must be asked (by `resolve`) before this stage may run.
    """

    entry: StageStatus
    actions: tuple[Action, ...] = ()
    trouble: Trouble | None = None
    look_again_seconds: float | None = None
    result: StageResult | None = None
    asks_store: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the stage is done."""
        return self.entry.state is StageState.SUCCEEDED


def pending_entry(call: StageCall) -> StageStatus:
    """A stage that nothing was done for yet."""
    return StageStatus(
        name=call.stage.value,
        candidate=call.candidate,
        state=StageState.PENDING,
        input_hash=call.input_hash,
    )


def created_entry(entry: StageStatus, job: str) -> StageStatus:
    """The stage once its Job was asked for. Its reason stays until the new outcome is known."""
    return changed(
        entry, state=StageState.PENDING, job=job, next_try_at="", started_at="", completed_at="",
        progress=None,
    )  # fmt: skip


def changed(entry: StageStatus, **update: Any) -> StageStatus:
    """The entry with some fields changed and its texts within bounds."""
    if "message" in update:
        update["message"] = update["message"][:1024]
    return entry.model_copy(update=update)


def running_step(view: View, entry: StageStatus, job: ObservedJob) -> Step:
    """A Job under way: its progress, or what holds its pod up."""
    pod = job.pods[-1] if job.pods else None
    holdup = queue_of(job) or holdup_of(pod)
    runs = pod is not None and pod.container_started_at is not None
    state = StageState.WAITING if holdup else StageState.RUNNING if runs else StageState.PENDING
    # That a working stage's Job was there must be known when it vanishes; a probe just runs again.
    is_no_news = state is StageState.PENDING and job.stage not in WORKING_STAGES
    reason, message = _kept_reason(entry, runs)
    if holdup:
        reason, message = holdup.reason, _steady_message(holdup, entry, job)
    seen = changed(
        entry,
        state=state,
        job=job.name,
        next_try_at="",
        started_at="" if is_no_news else rfc3339(job.started_at or job.created_at),
        progress=_progress(job),
        reason=reason,
        message=message or hindrance_of(pod),
    )
    trouble = holdup or remembered_trouble(seen)
    return Step(seen, trouble=trouble, look_again_seconds=RUNNING_LOOK_SECONDS)


def taken_step(entry: StageStatus, job: ObservedJob, result: StageResult) -> Step:
    """A Job whose result is readable: the stage is done."""
    ended = job.finished_at or job.created_at
    done = changed(
        entry,
        state=StageState.SUCCEEDED,
        job=job.name,
        digest=result.digest,
        started_at=rfc3339(job.started_at or job.created_at),
        completed_at=rfc3339(ended),
        accelerator_seconds=entry.accelerator_seconds
        + (result.accelerator_seconds or _held_accelerator_seconds(job, ended)),
        next_try_at="",
        progress=None,
        reason="",
        message=result.message,
        measurements=result.measurements or None,
    )
    return Step(done, result=result)


def failed_step(view: View, entry: StageStatus, job: ObservedJob, trouble: Trouble) -> Step:
    """Put a failure on record. A Job that still runs is ended only once it stands there."""
    waits = trouble.cure is not Cure.CHANGE
    attempt = entry.attempt + 1
    wait = backoff_seconds(view, attempt)
    ended = job.finished_at or view.now  # what still runs is ended now
    failed = changed(
        entry,
        state=StageState.WAITING if waits else StageState.FAILED,
        job=job.name,
        attempt=attempt if waits else entry.attempt,
        started_at=rfc3339(job.started_at or job.created_at),
        completed_at=rfc3339(ended),
        next_try_at=rfc3339(view.now + wait) if waits else "",
        accelerator_seconds=entry.accelerator_seconds + _held_accelerator_seconds(job, ended),
        progress=None,
        reason=trouble.reason,
        message=trouble.message,
    )
    return Step(failed, trouble=trouble, look_again_seconds=wait if waits else 1.0)


def trouble_of(view: View, job: ObservedJob, always_waits: bool) -> Trouble | None:
    """Why a Job failed; for resolve, whose every failure the world may cure, never stalled."""
    trouble = failure_of(job, view.spec, view.now)
    if trouble and always_waits:
        return Trouble(trouble.reason, trouble.message, Cure.TIME)
    return trouble


def remembered_trouble(entry: StageStatus) -> Trouble | None:
    """The trouble that status remembers of a stage that failed, or failed and is tried again."""
    if not entry.reason:
        return None
    cure = Cure.CHANGE if entry.state is StageState.FAILED else Cure.TIME
    return Trouble(entry.reason, entry.message, cure)


def backoff_seconds(view: View, attempt: int) -> float:
    """30 s, doubling with every failed attempt, up to 10 minutes by default."""
    settings = view.settings
    doubled = settings.backoff_min_seconds * 2.0 ** min(attempt - 1, 30)
    return min(doubled, settings.backoff_max_seconds)


def _kept_reason(entry: StageStatus, runs: bool) -> tuple[str, str]:
    """Why the last attempt failed, while this one has no outcome: no flapping, no new event.

    A working stage may run for hours: once it runs, what was in its way is history.
    """
    is_history = runs and entry.name in WORKING_STAGES
    if not entry.attempt or entry.reason in _HOLDUPS or is_history:
        return "", ""
    return entry.reason, entry.message


def _steady_message(holdup: Trouble, entry: StageStatus, job: ObservedJob) -> str:
    """The kubelet alternates between a cause and `Back-off`; the first that was seen stays."""
    same = entry.job == job.name and entry.reason == holdup.reason
    steady = same and holdup.reason == ConditionReason.IMAGE_PULL_FAILED
    return entry.message if steady else holdup.message


def _progress(job: ObservedJob) -> ProgressStatus | None:
    seen = job.progress
    if seen is None:
        return None
    return ProgressStatus(
        done=seen.done, total=seen.total, unit=seen.unit[:128], eta_seconds=seen.eta_seconds
    )


def _held_accelerator_seconds(job: ObservedJob, until: float) -> int:
    """Accelerators times the time that a pod of the Job has held them."""
    if not job.accelerators:
        return 0
    started = [p.container_started_at for p in job.pods if p.container_started_at is not None]
    return int(job.accelerators * max(0.0, until - min(started, default=until)))
