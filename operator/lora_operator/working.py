"""A working stage's Job: one name for (uid, stage, inputs), created only while the store lacks it.

Its life in status, and what each state allows:

    (none) -> Pending, job named -> Running -> Succeeded
                  ^                    |
                  |                    +--> Failed      until the object changes
                  |                    +--> Waiting     until next_try_at
                  +-- Pending, job "" <--- due, or the Job vanished, or its result is unreadable

`Pending` with an empty `job` means: may run (again) once `resolve` has asked the store, because a
Job that vanished, or whose result was lost, may have finished (P3). The name is free again only
when the old Job is gone, so it is deleted, and the new one is created in a later look.
"""

from collections.abc import Callable

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import StageCall, StageRequest
from lora_api.naming import job_name
from lora_api.status import StageState, StageStatus
from lora_operator.actions import CreateJob, DeleteJob
from lora_operator.failures import RETRY_HINT, Cure, Trouble
from lora_operator.observed import ObservedJob
from lora_operator.step import (
    Step,
    changed,
    created_entry,
    failed_step,
    pending_entry,
    remembered_trouble,
    running_step,
    trouble_of,
)
from lora_operator.view import RUNNING_LOOK_SECONDS, SOON_SECONDS, View, is_backing_off

Request = Callable[[StageCall], StageRequest]


def follow_working_stage(
    view: View, call: StageCall, request: Request, store_was_asked: bool
) -> Step:
    """Look at the stage that the line needs next.

    Args:
        view: The look.
        call: The stage; its result is not known.
        request: Makes the Job's request.
        store_was_asked: `resolve` has passed for this very line since the last loss or failure.
    """
    parent = view.parent
    name = job_name(parent.name, parent.uid, call.stage, call.input_hash)
    job, entry = view.job(name), view.entry(call.stage, call.input_hash)
    if job and not job.ours:
        return _conflict(entry or pending_entry(call), job)
    if job and job.deleting:
        return Step(entry or pending_entry(call), look_again_seconds=RUNNING_LOOK_SECONDS)
    if entry and entry.state is StageState.FAILED:
        return _remembered(view, entry, job)
    if entry and is_backing_off(entry):
        return _may_run_again(entry) if view.is_due(entry) else _remembered(view, entry, job)
    if job is None:
        return _without_job(call, entry, name, request, store_was_asked)
    return _with_job(view, call, entry, job, store_was_asked)


def _without_job(
    call: StageCall, entry: StageStatus | None, name: str, request: Request, store_was_asked: bool
) -> Step:
    if entry and entry.job and entry.started_at:
        return _may_run_again(entry)  # it was there and vanished: perhaps it had finished
    entry = entry or pending_entry(call)
    if not store_was_asked:
        return Step(entry, trouble=remembered_trouble(entry))
    return Step(
        created_entry(entry, name),
        actions=(CreateJob(name, request(call)),),
        trouble=remembered_trouble(entry),
        look_again_seconds=RUNNING_LOOK_SECONDS,
    )


def _with_job(
    view: View,
    call: StageCall,
    entry: StageStatus | None,
    job: ObservedJob,
    store_was_asked: bool,
) -> Step:
    allowed = entry is not None and entry.state is StageState.PENDING and not entry.job
    entry = entry or pending_entry(call)
    if allowed and (job.failed or job.complete):
        delete = DeleteJob(job.name, job.uid, "it is tried again")
        actions = (delete,) if store_was_asked else ()
        return Step(entry, actions, remembered_trouble(entry), SOON_SECONDS)
    if job.complete:
        return _unreadable(view, entry, job, store_was_asked)
    trouble = trouble_of(view, job, always_waits=False)
    if trouble:
        return failed_step(view, entry, job, trouble)
    return running_step(view, entry, job)


def _unreadable(view: View, entry: StageStatus, job: ObservedJob, store_was_asked: bool) -> Step:
    """Complete, but no result: the store knows. Never run it again unasked (P3)."""
    if entry.reason != ConditionReason.RESULT_LOST:
        lost = changed(
            entry,
            state=StageState.WAITING,
            job=job.name,
            reason=str(ConditionReason.RESULT_LOST),
            message=f"Job {job.name} is complete without a readable result; asking the store",
        )
        return Step(lost, trouble=remembered_trouble(lost), asks_store=True)
    if not store_was_asked:
        return Step(entry, (), remembered_trouble(entry), RUNNING_LOOK_SECONDS)
    message = (
        f"{job.stage} completed but the store has no result of it; see the log of Job "
        f"{job.name}, then {RETRY_HINT}"
    )
    return failed_step(
        view, entry, job, Trouble(ConditionReason.STAGE_CRASHED, message, Cure.CHANGE)
    )


def _may_run_again(entry: StageStatus) -> Step:
    again = changed(entry, state=StageState.PENDING, job="", next_try_at="", started_at="")
    return Step(again, trouble=remembered_trouble(again), asks_store=True)


def _remembered(view: View, entry: StageStatus, job: ObservedJob | None) -> Step:
    """A failure on record. What still runs (out of memory, too long) is ended now.

    A program that said why it ended runs no more, and its Job keeps the log.
    """
    is_over = job is None or job.failed or job.complete or job.outcome is not None
    actions = () if is_over or not job else (DeleteJob(job.name, job.uid, entry.reason),)
    return Step(
        entry, actions, trouble=remembered_trouble(entry), look_again_seconds=view.wait_of(entry)
    )


def _conflict(entry: StageStatus, job: ObservedJob) -> Step:
    message = (
        f"a Job {job.name} exists and is not owned by this object; delete it or rename the "
        f"object, then {RETRY_HINT}"
    )
    trouble = Trouble(ConditionReason.NAME_CONFLICT, message, Cure.CHANGE)
    failed = changed(entry, state=StageState.FAILED, reason=trouble.reason, message=message, job="")
    return Step(failed, trouble=trouble)
