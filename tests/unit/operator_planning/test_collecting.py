"""`artifact.keepReleases`: what is collected, when, and that it is in the way of nothing."""

from typing import Any

from lora_api.jobcontract import Reason, StageFailure
from planning_world import World, serving_world

KEEP_TWO: dict[str, Any] = {"artifact.keepReleases": 2}


def world_with_releases(*group_sizes: int, **changes: Any) -> World:
    """One release after the other; the last serves."""
    world = serving_world(**changes, **{"quantization.gptq": {"groupSize": group_sizes[0]}})
    for size in group_sizes[1:]:
        world.edit(**{"quantization.gptq": {"groupSize": size}})
        world.settle()
    return world


def releases(world: World) -> list[str]:
    return [r["id"] for r in world.status["releases"]]


def test_older_releases_than_are_kept_are_collected_once_the_newest_has_settled() -> None:
    world = world_with_releases(128, 64, **KEEP_TWO)
    assert "collect" not in world.created
    first = releases(world)[-1]
    world.edit(**{"quantization.gptq": {"groupSize": 32}})
    world.settle()
    assert world.created.count("collect") == 1
    assert world.collected == [first]
    assert first not in releases(world)
    assert len(releases(world)) == 2
    assert world.condition("Ready") == ("True", "Serving")
    assert "collect" not in [s["name"] for s in world.status["stages"]]


def test_without_a_number_nothing_is_ever_collected() -> None:
    world = world_with_releases(128, 64, 32)
    assert len(releases(world)) == 3
    assert "collect" not in world.created


def test_what_serves_stays_however_old_it_is() -> None:
    world = world_with_releases(128, 64, 32)
    newest, middle, oldest = releases(world)
    world.edit(**{"quantization.gptq": {"groupSize": 128}})  # reverted: the oldest serves again
    world.settle()
    world.edit(**{"artifact.keepReleases": 1})
    world.settle()
    assert releases(world) == [newest, oldest]
    assert world.collected == [middle]


def test_under_a_pin_nothing_is_collected() -> None:
    world = world_with_releases(128, 64)
    oldest = releases(world)[-1]
    world.edit(**{"serving.pin": oldest, "artifact.keepReleases": 1})
    world.settle()
    assert "collect" not in world.created


def test_a_collection_that_fails_is_told_and_leaves_the_object_ready() -> None:
    world = world_with_releases(128, 64, **KEEP_TWO)
    world.edit(**{"quantization.gptq": {"groupSize": 32}})
    world.run_until("collect")
    denied = StageFailure(failure=Reason.ACCESS_DENIED, message="may not delete; allow it")
    world.end_stage("collect", denied, exit_code=3)
    world.rest()
    (entry,) = [s for s in world.status["stages"] if s["name"] == "collect"]
    assert (entry["state"], entry["reason"]) == ("Waiting", "AccessDenied")
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Stalled")[0] == "False"
    assert len(releases(world)) == 3
    world.settle()
    assert len(releases(world)) == 2


def test_a_wiped_status_collects_nothing() -> None:
    world = world_with_releases(128, 64, 32, **KEEP_TWO)
    collected = list(world.collected)
    world.status = {}
    world.settle()
    assert world.collected == collected


def test_nothing_is_published_or_pinned_while_releases_are_removed() -> None:
    world = world_with_releases(128, 64, **KEEP_TWO)
    oldest = releases(world)[-1]
    world.edit(**{"quantization.gptq": {"groupSize": 32}})
    removal = world.run_until("collect").name
    published = world.created.count("publish")
    world.edit(**{"quantization.gptq": {"groupSize": 128}})  # back to what is being removed
    world.rest()
    assert removal in world.jobs, "it is left to its end"
    assert world.created.count("publish") == published
    world.edit(**{"serving.pin": oldest})
    world.rest()
    assert "recall" not in world.created
    world.edit(**{"serving.pin": ""})
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.status["serving"]["release"] == oldest
