"""Every decision: from what was observed to what to do, what to say and when to look again.

Pure: no client, no clock, no environment. The same look always makes the same plan, a plan carried
out twice does nothing twice, and one that is cut short anywhere is taken up by the next look.

    look -> run: resolve, stages, report, publish -> rollout: bring up, verify, switch -> status

Nothing is remembered but status, and that only as a cache: what is done stands in the store, which
`resolve` asks before any stage may start; what serves stands in the Service.
"""

from collections.abc import Iterator
from dataclasses import replace

from lora_api.jobcontract import Stage
from lora_api.status import Phase
from lora_api.times import rfc3339
from lora_operator.actions import Action, CreateJob, DeleteJob
from lora_operator.allowed import refusal_of, refusal_of_stored
from lora_operator.asking import spec_of
from lora_operator.collecting import follow_collect
from lora_operator.failures import Trouble
from lora_operator.observed import Observed
from lora_operator.plan import Plan
from lora_operator.promotion import living
from lora_operator.rollout import Rollout, follow_rollout, start_given_up_releases_again
from lora_operator.run import Run, follow_run
from lora_operator.settings import Settings
from lora_operator.statusbuilding import build_status
from lora_operator.telling import (
    conditions_of,
    current_stages,
    events_of,
    findings_of,
    stalled_findings,
    trouble_of_all,
)
from lora_operator.view import SOON_SECONDS, View, retry_token, soonest, status_of


def plan(observed: Observed, settings: Settings, now: float) -> Plan:
    """Decide on one look.

    Args:
        observed: The object and its children, read live.
        settings: What the chart decides.
        now: Seconds since the epoch.
    """
    before = status_of(observed.parent.status)
    if observed.parent.deleting:
        return Plan((), before)
    spec = spec_of(observed.parent.spec, settings.profiles)
    if isinstance(spec, Trouble):
        return _plan_stalled(observed, spec, now)
    refusal = refusal_of(spec, settings.allowed, settings.serving_images.values())
    if refusal:
        return _plan_stalled(observed, refusal, now)
    view = View(observed, settings, spec, before, now)
    given_up = start_given_up_releases_again(view)
    if given_up:
        # Nothing is said before they are gone: what is on record now tells that they must go.
        return Plan(given_up, before, SOON_SECONDS)
    run = follow_run(view)
    if refusal := _stored_refusal(view, run):
        return _plan_stalled(observed, refusal, now)
    rollout = follow_rollout(view, run)
    return _plan(view, replace(run, collect=follow_collect(view, run, rollout)), rollout)


def _stored_refusal(view: View, run: Run) -> Trouble | None:
    """Of what nobody has vouched for yet: neither in status nor on a Deployment of ours."""
    pinned = run.pin.wanted.release.recipe if run.pin and run.pin.wanted else {}
    served = [dict(d.recipe) for d in living(view)]
    own = {view.spec.serving.image, view.before.image}
    images = (run.resolution.image, str(pinned.get("image", "")))
    known_images = own | {str(recipe.get("image", "")) for recipe in served}
    runtimes = (str(pinned.get("runtime", "")),)
    known_runtimes = {str(recipe.get("runtime", "")) for recipe in served}
    return refusal_of_stored(
        [image for image in images if image not in known_images],
        [runtime for runtime in runtimes if runtime not in known_runtimes],
        view.settings.allowed,
        view.settings.serving_images.values(),
    )


def _plan(view: View, run: Run, rollout: Rollout) -> Plan:
    trouble = trouble_of_all(run, rollout)
    findings = findings_of(view.observed, run, rollout)
    steps = run.steps
    actions: list[Action] = [a for step in steps for a in step.actions]
    actions += rollout.actions
    actions += _superseded_jobs(view, run, rollout)
    actions += events_of(view.before, findings)
    waits = [*(s.look_again_seconds for s in steps), rollout.look_again_seconds]
    if run.is_suspended:
        actions, waits = [*_without_jobs(actions), *_jobs_under_way(view)], []
    return Plan(
        actions=tuple(actions),
        status=build_status(view, run, rollout, findings, trouble),
        look_again_seconds=soonest(waits),
    )


def _without_jobs(actions: list[Action]) -> Iterator[Action]:
    return (a for a in actions if not isinstance(a, CreateJob | DeleteJob))


def _jobs_under_way(view: View) -> Iterator[DeleteJob]:
    """Deleting a Job sends its pod SIGTERM: the stage ends and its accelerators are free."""
    for job in view.observed.jobs:
        if job.ours and not (job.complete or job.failed or job.deleting):
            yield DeleteJob(job.name, job.uid, "suspended")


def _superseded_jobs(view: View, run: Run, rollout: Rollout) -> Iterator[DeleteJob]:
    """Jobs under way that this generation has no use for; finished ones are left to their TTL.

    A stage's Job is left alone until it is sure what is wanted: resolve may still find that the
    new generation asks for the very same work. What collects is left to its end, which is near:
    cut short it would leave half of what it removes.
    """
    wanted = {(e.name, e.input_hash) for e in current_stages(run, rollout)}
    for job in view.observed.jobs:
        is_under_way = job.ours and not (job.complete or job.failed or job.deleting)
        is_sure = run.knows_its_work or job.stage == Stage.RESOLVE
        is_sure = is_sure and job.stage != Stage.COLLECT
        if is_under_way and is_sure and (job.stage, job.input_hash) not in wanted:
            yield DeleteJob(job.name, job.uid, "another piece of work has taken its place")


def _plan_stalled(observed: Observed, trouble: Trouble, now: float) -> Plan:
    """A spec that this version cannot read, complete or follow: say so, touch nothing."""
    before, parent = status_of(observed.parent.status), observed.parent
    findings = stalled_findings(observed, trouble)
    status = before.model_copy(
        update={
            "observed_generation": parent.generation,
            "phase": Phase.STALLED,
            "summary": before.summary.model_copy(update={"reason": trouble.reason}),
            "conditions": conditions_of(before, findings, parent.generation, rfc3339(now)),
            "last_handled_retry": retry_token(parent) or before.last_handled_retry,
        }
    )
    return Plan(events_of(before, findings), status)
