"""`serving.pin`: an earlier release of this object, taken up from its record and from nothing else.

No stage runs while it is set: nothing that one could make would serve. What the release is stands
on its Deployment while there is one; otherwise the probe `recall` reads it from the store. Where
keys are trusted, `recall` must have found one of their signatures in either case.
"""

from dataclasses import dataclass

from lora_api.jobcontract import Release, Stage, StageCall, StageResult
from lora_api.status import StageState
from lora_operator.bringup import Wanted
from lora_operator.probing import follow_probe
from lora_operator.promotion import living
from lora_operator.step import Step
from lora_operator.view import View, result_of


@dataclass(frozen=True)
class Pin:
    """One look at a pinned release.

    Attributes:
        release: Its id.
        wanted: What it is; None until that is known.
        step: The probe, where it is needed.
    """

    release: str
    wanted: Wanted | None = None
    step: Step | None = None


def follow_pin(view: View) -> Pin | None:
    """Look what the pinned release is; None when nothing is pinned."""
    release = view.spec.serving.pin
    if not release:
        return None
    there = _of_deployment(view, release)
    asks_for_signature = view.spec.provenance is not None and view.spec.provenance.public_keys
    if there and not asks_for_signature:
        return Pin(release, there)
    if view.is_collecting:
        return Pin(release)
    request = view.requests.recall(release)
    result, entry = _recalled(view, request.call), view.entry(Stage.RECALL, request.call.input_hash)
    has_passed = entry is not None and entry.state is StageState.SUCCEEDED
    is_forgotten = has_passed and result is None and there is None
    step = follow_probe(view, request, again=is_forgotten)
    found = there if step.succeeded else None
    return Pin(release, found or _of_result(step.result or result), step)


def _of_deployment(view: View, release: str) -> Wanted | None:
    """As its Deployment says; one of an older operator does not know its benchmark."""
    d = next((d for d in living(view) if d.release == release and d.benchmark), None)
    if d is None:
        return None
    recipe = dict(d.recipe)
    return Wanted(Release(id=release, artifact=d.digest, recipe=recipe), d.candidate, d.benchmark)


def _recalled(view: View, call: StageCall) -> StageResult | None:
    jobs = view.jobs_of(call.stage, call.input_hash)
    return next((result for j in jobs if (result := result_of(j))), None)


def _of_result(result: StageResult | None) -> Wanted | None:
    if result is None or result.release is None:
        return None
    return Wanted(result.release, result.candidate, result.benchmark)
