"""After the switch: a bake with a way back, a drain, and then one release; Recreate makes room."""

from dataclasses import replace
from typing import Any

import pytest

from lora_api.jobcontract import Reason, StageFailure
from lora_operator.observed import ObservedPod
from planning_world import World, lose_a_pod, serving_world

NEXT = {"quantization.gptq": {"groupSize": 64}}
DEFAULTS: dict[str, Any] = {"serving.strategy": {}}
RECREATE: dict[str, Any] = {"serving.strategy": {"type": "Recreate"}}
REFUSED = StageFailure(failure=Reason.VERIFICATION_FAILED, message="other answers than recorded")


def go_on(world: World, looks: int = 200) -> None:
    """Let everything happen that needs no time."""
    for _ in range(looks):
        writes = world.writes
        world.reconcile()
        if world.writes == writes and not world.step_forward():
            return
    raise AssertionError(world.told())


def switched(**changes: Any) -> tuple[World, str, str]:
    """A world whose second release has just been selected; names of both Deployments."""
    world = serving_world(**changes)
    (first,) = world.deployments
    world.edit(**NEXT)
    go_on(world)
    assert world.service is not None
    (second,) = set(world.deployments) - {first}
    assert world.service.release == world.deployments[second].release
    return world, first, second


def test_the_former_release_is_kept_in_full_until_bake_and_drain_are_over() -> None:
    world, first, second = switched(**DEFAULTS, **{"serving.replicas": 2})
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", "Baking")
    assert world.deployments[first].release in world.message("Reconciling")
    assert world.status["observedGeneration"] == 2
    world.edit(**{"serving.replicas": 3})
    go_on(world)
    assert world.deployments[first].replicas == 3, "it can take over at any time"
    world.now += 10 * 60 - 1
    assert world.rest().look_again_seconds == 1.0
    assert first in world.deployments
    world.now += 1
    world.rest()
    assert list(world.deployments) == [second]
    assert world.condition("Reconciling") == ("False", "Settled")
    assert world.rest().look_again_seconds is None


def test_a_drain_that_is_longer_than_the_bake_keeps_the_release_but_not_the_way_back() -> None:
    strategy = {"blueGreen": {"bakeTime": "1m", "drainTimeout": "3m"}}
    world, first, second = switched(**{"serving.strategy": strategy})
    world.now += 61
    world.rest()
    assert first in world.deployments
    assert world.condition("Reconciling") == ("False", "Settled")
    lose_a_pod(world, second)
    world.serving_pods_start = False
    world.rest()
    assert world.service is not None
    assert world.service.release == world.deployments[second].release
    world.make_ready(second)
    world.now += 120
    world.rest()
    assert list(world.deployments) == [second]


def test_the_service_goes_back_at_once_when_the_new_release_loses_a_pod_while_it_bakes() -> None:
    world, first, second = switched(**DEFAULTS, **{"serving.replicas": 2})
    lose_a_pod(world, second)
    world.serving_pods_start = False
    world.reconcile()
    assert world.service is not None
    assert world.service.release == world.deployments[first].release
    assert second in world.deployments, "given up only once it was seen not to be selected"
    world.rest()
    assert world.deployments[second].gave_up == "LostReadiness"
    assert world.deployments[second].replicas == 0
    assert world.condition("Ready") == ("False", "LostReadiness")
    assert world.condition("Stalled") == ("True", "LostReadiness")
    assert world.condition("Available") == ("True", "Serving")
    assert "bakeTime" in world.message("Ready")
    world.serving_pods_start = True
    selected, created = list(world.selected), list(world.created)
    world.settle()
    assert (world.selected, world.created) == (selected, created), "no loop"
    assert set(world.deployments) == {first, second}


@pytest.mark.fault("F4")
@pytest.mark.parametrize("crash_after", range(4))
def test_a_crash_while_it_goes_back_ends_the_same(crash_after: int) -> None:
    world, first, second = switched(**DEFAULTS)
    lose_a_pod(world, second)
    world.serving_pods_start = False
    world.reconcile_without_status(crash_after)
    if world.service and world.service.release == world.deployments[first].release:
        world.make_ready(second)  # ready again before anybody looks
    world.status = {}
    world.rest()
    world.settle()
    assert world.service is not None
    assert world.service.release == world.deployments[first].release
    assert world.deployments[second].gave_up == "LostReadiness"


@pytest.mark.parametrize("cure", ["a retry", "a change of the spec"])
def test_a_release_that_lost_its_pods_is_brought_up_anew_after(cure: str) -> None:
    world, _, second = switched(**DEFAULTS)
    lose_a_pod(world, second)
    world.serving_pods_start = False
    world.rest()
    worked, old = list(world.worked), world.deployments[second].uid
    if cure == "a retry":
        world.ask_for_a_retry()
    else:
        world.edit(**{"serving.scheduling": {"resources": {"limits": {"memory": "64Gi"}}}})
    world.serving_pods_start = True
    world.settle()
    assert world.deployments[second].uid != old
    assert world.condition("Ready")[0] == "True"
    assert world.worked == worked, "nothing is measured again"


@pytest.mark.fault("F36")
def test_pods_that_an_autoscaler_takes_away_are_not_lost() -> None:
    world, _, second = switched(**DEFAULTS, **{"serving.replicas": 3})
    world.edit(**{"serving.replicas": 1})
    world.settle()
    assert world.service is not None
    assert world.service.release == world.deployments[second].release
    assert world.condition("Ready")[0] == "True"


def test_reverting_the_change_while_it_bakes_switches_back_at_once_without_any_job() -> None:
    world, first, _ = switched(**DEFAULTS)
    jobs = [c for c in world.created if c != "resolve"]
    world.edit(**{"quantization.gptq": {"groupSize": 128}})
    world.rest()
    assert world.service is not None
    assert world.service.release == world.deployments[first].release
    assert world.condition("Ready")[0] == "True"
    go_on(world)
    assert [c for c in world.created if c not in ("resolve", "report", "publish")] == [
        j for j in jobs if j not in ("report", "publish")
    ]


def test_a_replicas_change_by_an_autoscaler_never_makes_ready_flicker() -> None:
    world = serving_world(**{"serving.replicas": 1})
    (name,) = world.deployments
    world.edit(**{"serving.replicas": 3})
    for pods in (1, 2, 3):
        world.reconcile()
        assert world.condition("Ready") == ("True", "Serving"), pods
        d = world.deployments[name]
        new = ObservedPod(f"{name}-new-{pods}", "p", phase="Running", container_started_at=1.0)
        world.deployments[name] = replace(d, pods=(*d.pods, new)[:3], available=False)
    assert world.condition("Reconciling") == ("True", "WaitingForPods")
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("False", "Settled")


def come_up(world: World) -> str:
    """Let pods end and start until the second Deployment is there; its name."""
    before = set(world.deployments)
    world.serving_pods_start = False
    for _ in range(80):
        writes = world.writes
        world.reconcile()
        for name, d in world.deployments.items():
            if d.pods and not d.replicas:
                world.make_ready(name)  # its pods end
        if new := set(world.deployments) - before:
            return new.pop()
        if world.writes == writes:
            world.step_forward()
    raise AssertionError(world.told())


def test_recreate_frees_the_accelerator_before_the_successor_starts() -> None:
    world = serving_world(**RECREATE)
    (first,) = world.deployments
    world.edit(**NEXT)
    go_on_until_room_is_made(world, first)
    assert world.deployments[first].replicas == 0
    assert list(world.deployments) == [first], "not before the last pod has ended"
    assert "make room" in world.message("Ready")
    second = come_up(world)
    assert world.service is not None
    assert world.service.release == world.deployments[first].release, "not before it is verified"
    world.make_ready(second)
    world.rest()
    assert world.service.release == world.deployments[first].release
    world.end_stage("verify")
    world.rest()
    assert world.service.release == world.deployments[second].release
    assert list(world.deployments) == [second]
    assert world.condition("Ready")[0] == "True"


def go_on_until_room_is_made(world: World, first: str) -> None:
    world.serving_pods_start = False
    for _ in range(80):
        writes = world.writes
        world.reconcile()
        if not world.deployments[first].replicas:
            world.rest()
            return
        if world.writes == writes:
            world.step_forward()
    raise AssertionError(world.told())


@pytest.mark.parametrize("why", ["refused", "crashed", "too late"])
def test_recreate_brings_the_last_good_release_back_when_its_successor_fails(why: str) -> None:
    world = serving_world(**RECREATE)
    (first,) = world.deployments
    world.edit(**NEXT)
    second = come_up(world)
    if why == "too late":
        pod = ObservedPod("p", "p", container_started_at=world.now)
        world.deployments[second] = replace(world.deployments[second], pods=(pod,))
        world.rest()
        world.now += 901
    else:
        world.make_ready(second)
        world.rest()
        outcome = REFUSED if why == "refused" else "OSError: disk full"
        world.end_stage("verify", outcome, exit_code=2 if why == "refused" else 1)
    world.rest()
    assert world.deployments[second].gave_up
    assert world.deployments[first].replicas == 1
    world.serving_pods_start = True
    world.settle()
    assert world.condition("Available") == ("True", "Serving")
    assert world.condition("Ready")[0] == "False"
    assert world.service is not None
    assert world.service.release == world.deployments[first].release


def test_with_recreate_an_unwanted_candidate_makes_room_for_what_serves() -> None:
    world = serving_world(**RECREATE)
    (first,) = world.deployments
    world.edit(**NEXT)
    second = come_up(world)
    world.task_quality = {32: 2.0}
    world.edit(**{"quantization.gptq": {"groupSize": 32}})
    go_on(world)
    assert second not in world.deployments
    assert world.deployments[first].replicas == 1
    assert world.condition("Ready") == ("False", "GatesFailed")
