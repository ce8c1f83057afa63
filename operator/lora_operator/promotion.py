"""After the switch: the new release bakes while the former one is kept, ready to take over again.

    switch --- bakeTime ---> settled        the new release loses a pod: the Service goes back
    switch --- max(bakeTime, drainTimeout) ---> the former release is removed

Both times count from the switch, which stands on the Service itself and so survives us and status.
"""

from dataclasses import dataclass

from lora_api.times import rfc3339
from lora_operator.observed import ObservedDeployment, ObservedService, Switch
from lora_operator.view import SOON_SECONDS, View


@dataclass(frozen=True)
class Promotion:
    """One look at the time after a switch.

    Attributes:
        kept: The former release, while it is kept.
        bakes_until: RFC 3339; empty when the new release is settled.
        goes_back: The new release lost pods while it baked, and the former one answers.
        look_again_seconds: When the next of both times ends.
    """

    kept: ObservedDeployment | None = None
    bakes_until: str = ""
    goes_back: bool = False
    look_again_seconds: float | None = None


def promotion_of(view: View, selected: ObservedDeployment | None) -> Promotion:
    """How far the release that the Service selects has settled."""
    service = view.observed.service
    switch = service.switch if service and service.ours else None
    if switch is None or selected is None:
        return Promotion()
    strategy = view.spec.serving.strategy
    former = next((d for d in living(view) if d.release == switch.previous), None)
    age = view.now - switch.at
    if former is None or former.gave_up or age >= strategy.keep_seconds:
        return Promotion()
    if age >= strategy.bake_seconds:
        return Promotion(former, look_again_seconds=_until(strategy.keep_seconds, age))
    return Promotion(
        former,
        bakes_until=rfc3339(switch.at + strategy.bake_seconds),
        goes_back=_has_lost_pods(view, selected, switch) and _answers(former),
        look_again_seconds=_until(strategy.bake_seconds, age),
    )


def switch_to(view: View, release: str, refused: str = "") -> Switch | None:
    """What stands on the Service once it selects `release`: as it is now, or a new switch."""
    service = view.observed.service
    if service and service.ours and service.release == release:
        return service.switch
    ready = next((d.ready_replicas for d in living(view) if d.release == release), 0)
    return Switch(view.now, _release_of(service), ready, refused)


def was_refused(view: View, deployment: ObservedDeployment) -> bool:
    """Whether the Service went back from this very Deployment."""
    service = view.observed.service
    switch = service.switch if service and service.ours else None
    return switch is not None and switch.refused == verification_key(deployment)


def verification_key(d: ObservedDeployment) -> str:
    """How `status.verified`, and the Service, name one Deployment of a release."""
    return f"{d.release}/{d.uid}"


def living(view: View) -> list[ObservedDeployment]:
    """Our Deployments that are not on their way out."""
    return [d for d in view.observed.deployments if d.ours and not d.deleting]


def _has_lost_pods(view: View, d: ObservedDeployment, switch: Switch) -> bool:
    """Fewer Ready pods than at the switch; pods that an autoscaler took or adds do not count."""
    return d.ready_replicas < min(switch.pods, view.spec.serving.replicas)


def _answers(d: ObservedDeployment) -> bool:
    return d.ready_replicas > 0


def _release_of(service: ObservedService | None) -> str:
    return service.release if service and service.ours else ""


def _until(end_seconds: float, age_seconds: float) -> float:
    return max(end_seconds - age_seconds, SOON_SECONDS)
