"""`artifact.keepReleases`: the probe that removes releases from the bucket that are not kept.

It runs once what is wanted serves and nothing may go back, and only while status knows of more
releases than are kept, so that an object that keeps all of them, or has few, never runs it. What it
says is in the way of nothing.
"""

from lora_api.jobcontract import StageRequest
from lora_api.retention import kept_releases
from lora_operator.probing import follow_probe
from lora_operator.promotion import living
from lora_operator.rollout import Rollout
from lora_operator.run import Run
from lora_operator.step import Step
from lora_operator.view import View


def kept(view: View) -> tuple[str, ...]:
    """Ids of the releases in status that stay, newest first."""
    known = [r.id for r in view.before.releases]
    keep = view.spec.artifact.keep_releases
    if keep is None:
        return tuple(known)
    return kept_releases(known, keep, {d.release for d in living(view)})


def follow_collect(view: View, run: Run, rollout: Rollout) -> Step | None:
    """Look at the probe, where there is something to collect."""
    is_settled = rollout.serves and rollout.bring_up.is_ready and rollout.promotion.kept is None
    if run.is_suspended or run.pin or not is_settled:
        return None
    stays = kept(view)
    if len(stays) == len(view.before.releases):
        return None
    request: StageRequest = view.requests.collect(stays)
    return follow_probe(view, request)
