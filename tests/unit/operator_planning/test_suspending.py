"""`spec.suspend`: accelerators are free at once, nothing new starts, what serves stays."""

from typing import Any

import pytest

from planning_world import World, serving_world

ANOTHER_ADAPTER: dict[str, Any] = {"adapters": [{"uri": "s3://models/other"}]}


@pytest.mark.parametrize("stage", ["resolve", "merge", "quantize", "evaluate", "benchmark"])
def test_a_running_stage_is_stopped_and_run_once_more_when_it_goes_on(stage: str) -> None:
    world = World()
    job = world.run_until(stage)
    world.start(job.name)
    world.reconcile()
    world.edit(suspend=True)
    world.settle()
    assert not world.unfinished_jobs()
    assert world.status["phase"] == "Suspended"
    assert world.condition("Ready") == ("Unknown", "Suspended")
    assert world.condition("Reconciling") == ("False", "Suspended")
    assert "Set it to false" in world.message("Ready")
    world.edit(suspend=False)
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert len(world.worked) == len(set(world.worked)), "no finished stage runs twice"


def test_a_suspended_object_starts_nothing_and_is_not_looked_at_again_and_again() -> None:
    world = World(changes={"suspend": True})
    made = world.rest()
    assert world.created == []
    assert made.look_again_seconds is None
    world.edit(suspend=False)
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_what_serves_serves_on_and_takes_up_nothing_new() -> None:
    world = serving_world()
    selected, worked = list(world.selected), list(world.worked)
    world.edit(suspend=True, **ANOTHER_ADAPTER)
    world.settle()
    assert world.selected == selected
    assert world.worked == worked
    assert world.condition("Available")[0] == "True"
    assert world.condition("Ready") == ("Unknown", "Suspended")


def test_a_suspended_object_that_serves_what_it_asks_for_is_ready() -> None:
    world = serving_world()
    world.edit(suspend=True)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.status["phase"] == "Suspended"


def test_a_candidate_on_its_way_up_is_removed_and_comes_back() -> None:
    world = serving_world()
    before = set(world.deployments)
    world.serving_pods_start = False
    world.edit(**ANOTHER_ADAPTER)
    for _ in range(200):
        if set(world.deployments) - before:
            break
        world.reconcile()
        world.step_forward()
    assert set(world.deployments) - before
    world.edit(suspend=True)
    world.rest()
    assert set(world.deployments) == before
    world.serving_pods_start = True
    world.edit(suspend=False)
    world.settle()
    assert world.condition("Ready")[0] == "True"
