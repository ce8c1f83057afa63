"""The serving side: bring the published release up, switch the Service to it, tidy up.

What serves is what the Service selects, never what status says; the last good release stays
selected until its successor is verified and all of it is Ready. Which verification has passed is
remembered per (release, Deployment uid).

With strategy Recreate what serves makes room first, and comes back when its successor is given up.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import Release
from lora_api.naming import deployment_name
from lora_api.strategy import StrategyType
from lora_operator.actions import Action, ApplyDeployment, ApplyService, DeleteDeployment
from lora_operator.bringup import (
    TELLS_NOTHING_OF_THE_MODEL,
    BringUp,
    bring_up,
    name_conflict,
)
from lora_operator.failures import Trouble
from lora_operator.observed import ObservedDeployment
from lora_operator.promotion import (
    Promotion,
    living,
    promotion_of,
    switch_to,
    verification_key,
    was_refused,
)
from lora_operator.run import Run
from lora_operator.view import RUNNING_LOOK_SECONDS, View, soonest

_ANY_CHANGE_MAY_CURE = (
    ConditionReason.START_DEADLINE_EXCEEDED,
    ConditionReason.LOST_READINESS,
    *TELLS_NOTHING_OF_THE_MODEL,
)


@dataclass(frozen=True)
class Rollout:
    """One look at the serving side.

    Attributes:
        actions: In their order.
        wanted: The published or pinned release.
        target: Its Deployment.
        selected: The Deployment that the Service selects.
        bring_up: How far the wanted release is.
        verified: `<release>/<Deployment uid>` of passed verifications, newest first.
        serves: What is wanted is what serves, verified; pods may still be on their way.
        trouble: What keeps it from that.
        promotion: The time after a switch.
    """

    actions: tuple[Action, ...]
    wanted: Release | None
    target: ObservedDeployment | None
    selected: ObservedDeployment | None
    bring_up: BringUp
    verified: tuple[str, ...]
    serves: bool
    trouble: Trouble | None
    promotion: Promotion

    @property
    def look_again_seconds(self) -> float | None:
        """Until all is settled, soon."""
        return soonest((self._coming_seconds, self.promotion.look_again_seconds))

    @property
    def _coming_seconds(self) -> float | None:
        if self.wanted is None or (self.serves and self.bring_up.is_ready):
            return None
        step = self.bring_up.verify
        if step and step.look_again_seconds:
            return step.look_again_seconds
        is_stalled = self.trouble is not None and self.trouble.is_stalled
        return None if is_stalled else RUNNING_LOOK_SECONDS


def start_given_up_releases_again(view: View) -> tuple[Action, ...]:
    """Delete the Deployments of given-up releases that this fresh start concerns.

    A failed verification judged the model, so only a retry asks again; pods that came up too late,
    or were lost, may be cured by any change of the spec.
    """
    if not view.starts_afresh:
        return ()
    service = view.observed.service
    return tuple(
        DeleteDeployment(d.name, d.uid, "it is tried again")
        for d in living(view)
        if d.gave_up
        and (view.retry or d.gave_up in _ANY_CHANGE_MAY_CURE)
        and not (service and service.release == d.release)
    )


def follow_rollout(view: View, run: Run) -> Rollout:
    """Look what serves, what shall serve, and what the next step between them is."""
    wanted = run.wanted.release if run.wanted else None
    selected = _selected(view)
    target = _deployment_named(view, wanted) if wanted else None
    if run.is_suspended and target is not selected:
        return _held_back(view, selected, target)
    makes_room = _makes_room(view, wanted, selected, target)
    up = _come_up(view, run, target, selected if makes_room else None)
    promotion = promotion_of(view, selected)
    chosen = _release_to_select(wanted, selected, up, promotion)
    service, conflict = view.observed.service, _service_conflict(view)
    actions: list[Action] = []
    if selected and not (wanted and selected.release == wanted.id):
        actions.append(_apply_again(view, selected, none=makes_room))
    if promotion.kept and not (wanted and promotion.kept.release == wanted.id):
        actions.append(_apply_again(view, promotion.kept))
    actions += up.actions
    if chosen and not conflict:
        refused = verification_key(selected) if selected and promotion.goes_back else ""
        actions.append(ApplyService(view.parent.name, chosen, switch_to(view, chosen, refused)))
    actions += _tidy(view, run, chosen, promotion)
    is_selected = bool(wanted and service and service.ours and service.release == wanted.id)
    answers = up.is_ready or up.is_scaling
    return Rollout(
        actions=tuple(actions),
        wanted=wanted,
        target=target,
        selected=selected if service else None,
        bring_up=up,
        verified=_verified(view, up, target),
        serves=is_selected and up.is_verified and answers and not promotion.goes_back,
        trouble=up.trouble or (conflict if chosen else None),
        promotion=promotion,
    )


def _come_up(
    view: View,
    run: Run,
    target: ObservedDeployment | None,
    in_the_way: ObservedDeployment | None,
) -> BringUp:
    if run.wanted is None:
        return BringUp()
    if target is None and in_the_way and in_the_way.pods:
        return BringUp(waits_for=f"the pods of release {in_the_way.release} to make room")
    return bring_up(view, run.wanted, target)


def _makes_room(
    view: View,
    wanted: Release | None,
    selected: ObservedDeployment | None,
    target: ObservedDeployment | None,
) -> bool:
    """Whether what serves ends before its successor starts, because they share accelerators."""
    if view.spec.serving.strategy.type is not StrategyType.RECREATE or _service_conflict(view):
        return False
    if wanted is None or selected is None or selected.release == wanted.id:
        return False
    return target is None or (target.ours and not target.gave_up and not was_refused(view, target))


def _held_back(
    view: View, selected: ObservedDeployment | None, candidate: ObservedDeployment | None
) -> Rollout:
    """Suspended: what serves stays, a candidate on its way up frees its accelerators."""
    actions: list[Action] = [_apply_again(view, selected)] if selected else []
    if candidate and candidate.ours and not candidate.deleting and not candidate.gave_up:
        actions.append(DeleteDeployment(candidate.name, candidate.uid, "suspended"))
    return Rollout(
        actions=tuple(actions),
        wanted=None,
        target=None,
        selected=selected if view.observed.service else None,
        bring_up=BringUp(),
        verified=_verified(view, BringUp(), None),
        serves=False,
        trouble=None,
        promotion=Promotion(),
    )


def _release_to_select(
    wanted: Release | None,
    selected: ObservedDeployment | None,
    up: BringUp,
    promotion: Promotion,
) -> str:
    if promotion.goes_back and promotion.kept:
        return promotion.kept.release
    if wanted and up.is_verified and up.is_ready:
        return wanted.id
    return selected.release if selected else ""


def _selected(view: View) -> ObservedDeployment | None:
    """What the Service selects; with the Service gone, the last that was verified."""
    service = view.observed.service
    if service:
        return next((d for d in living(view) if d.release == service.release), None)
    by_key = {verification_key(d): d for d in living(view) if not d.gave_up}
    return next((by_key[key] for key in view.before.verified if key in by_key), None)


def _apply_again(view: View, serving: ObservedDeployment, *, none: bool = False) -> ApplyDeployment:
    """A good release with its own recipe, and the replicas asked for now, or none."""
    return ApplyDeployment(
        name=serving.name,
        release=serving.release,
        digest=serving.digest,
        candidate=serving.candidate,
        recipe=serving.recipe,
        replicas=0 if none else view.spec.serving.replicas,
        benchmark=serving.benchmark,
    )


def _tidy(view: View, run: Run, chosen: str, promotion: Promotion) -> Iterable[Action]:
    """Delete releases that nobody wants, once what serves is available and stays selected."""
    service = view.observed.service
    if not run.knows_its_work:
        return
    if service:
        serving = next((d for d in living(view) if d.release == service.release), None)
        may_need_room = view.spec.serving.strategy.type is StrategyType.RECREATE
        if serving is None or chosen != service.release:
            return
        if not serving.available and not may_need_room:
            return
    kept = promotion.kept.release if promotion.kept else ""
    for d in living(view):
        if d.release not in (run.coming, chosen, kept):
            yield DeleteDeployment(d.name, d.uid, "another release has taken its place")


def _verified(view: View, up: BringUp, target: ObservedDeployment | None) -> tuple[str, ...]:
    existing = {verification_key(d) for d in view.observed.deployments}
    new = [verification_key(target)] if target and up.is_verified else []
    old = [k for k in view.before.verified if k in existing and k not in new]
    return tuple([*new, *old][:8])


def _deployment_named(view: View, release: Release) -> ObservedDeployment | None:
    name = deployment_name(view.parent.name, release.id)
    return next((d for d in view.observed.deployments if d.name == name), None)


def _service_conflict(view: View) -> Trouble | None:
    service = view.observed.service
    return name_conflict("Service", service.name) if service and not service.ours else None
