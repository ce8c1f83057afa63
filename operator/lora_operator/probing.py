"""A probe's Job (resolve, report, publish, verify): cheap, safe to run again, no action entry.

Its name carries the lowest free attempt number, so that a new attempt starts beside the Job whose
outcome is on record (`StageStatus.job`), which is then deleted. Create comes before delete: a view
that shows the old Job gone also shows the new one.
"""

from itertools import count

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import Stage, StageRequest
from lora_api.naming import job_name
from lora_api.status import StageState, StageStatus
from lora_operator.actions import Action, CreateJob, DeleteJob
from lora_operator.failures import Cure, Trouble
from lora_operator.observed import ObservedJob
from lora_operator.step import (
    Step,
    changed,
    created_entry,
    failed_step,
    pending_entry,
    remembered_trouble,
    running_step,
    taken_step,
    trouble_of,
)
from lora_operator.view import RUNNING_LOOK_SECONDS, SOON_SECONDS, View, is_backing_off, result_of


def follow_probe(view: View, request: StageRequest, again: bool = False) -> Step:
    """Look at a probe; `again` runs one that has succeeded once more."""
    call = request.call
    identity = call.input_hash
    entry = view.entry(call.stage, identity)
    jobs = view.jobs_of(call.stage, identity)
    if entry and entry.state is StageState.SUCCEEDED and not again:
        return _done(entry, jobs)
    spent = _spent(entry, jobs, again) if entry else []
    job = _newest([j for j in jobs if j not in spent])
    entry = entry or pending_entry(call)
    if job is not None:
        return _with_job(view, entry, job)
    if entry.state is StageState.FAILED or (is_backing_off(entry) and not view.is_due(entry)):
        return Step(
            entry,
            tuple(_delete(j, entry.reason) for j in spent if not _has_ended(j)),
            trouble=remembered_trouble(entry),
            look_again_seconds=view.wait_of(entry),
        )
    return _next_attempt(view, entry, request, spent)


def _next_attempt(
    view: View, entry: StageStatus, request: StageRequest, spent: list[ObservedJob]
) -> Step:
    parent, call = view.parent, request.call
    taken = {j.name for j in view.observed.jobs}
    attempt, name = next(
        (n, name)
        for n in count()
        if (name := job_name(parent.name, parent.uid, call.stage, call.input_hash, n)) not in taken
    )
    if entry.state is StageState.SUCCEEDED:
        entry = changed(entry, attempt=0)
    create: Action = CreateJob(name, request, attempt)
    return Step(
        created_entry(entry, name),
        actions=(create, *(_delete(j, "a new attempt takes its place") for j in spent)),
        trouble=remembered_trouble(entry),
        look_again_seconds=RUNNING_LOOK_SECONDS,
    )


def _with_job(view: View, entry: StageStatus, job: ObservedJob) -> Step:
    resolves = job.stage == Stage.RESOLVE
    result = result_of(job)
    if result:
        step = taken_step(entry, job, result)
        # Not deleted in the same breath: its result must stand in status first.
        return Step(step.entry, result=result, look_again_seconds=SOON_SECONDS)
    if job.complete:
        message = f"Job {job.name} is complete without a readable result; it is tried again"
        lost = Trouble(ConditionReason.RESULT_LOST, message, Cure.TIME)
        return failed_step(view, entry, job, lost)
    trouble = trouble_of(view, job, always_waits=resolves)
    if trouble:
        return failed_step(view, entry, job, trouble)
    return running_step(view, entry, job)


def _done(entry: StageStatus, jobs: list[ObservedJob]) -> Step:
    """A finished resolve Job must go: with a wiped status its result would be taken for news."""
    deletes = tuple(_delete(j, "its result is on record") for j in jobs if _has_ended(j))
    return Step(entry, actions=deletes if entry.name == Stage.RESOLVE else ())


def _spent(entry: StageStatus, jobs: list[ObservedJob], again: bool) -> list[ObservedJob]:
    """Jobs that have nothing new to say: the one whose outcome is on record, and older ones.

    Older, because two failed attempts would else take turns at being news.
    """
    named = next((j for j in jobs if j.name == entry.job), None)
    if again or entry.state is StageState.FAILED or is_backing_off(entry):
        since = named.created_at if named else float("-inf")
        return [j for j in jobs if j is named or (_has_ended(j) and j.created_at <= since)]
    # A new attempt is on record, so what has ended under another name is older.
    return [j for j in jobs if entry.job and j is not named and _has_ended(j)]


def _has_ended(job: ObservedJob) -> bool:
    return job.complete or job.failed


def _newest(jobs: list[ObservedJob]) -> ObservedJob | None:
    """The Job to follow: one under way, else a complete one, else the last that failed."""
    order = sorted(jobs, key=lambda j: (j.failed, j.complete, -j.created_at, j.name))
    return order[0] if order else None


def _delete(job: ObservedJob, why: str) -> DeleteJob:
    return DeleteJob(job.name, job.uid, why)
