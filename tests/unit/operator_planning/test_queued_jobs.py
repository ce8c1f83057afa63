"""A Job that a queue holds back, or takes its pod away: told with the reason, never a failure."""

from dataclasses import replace

import pytest

from planning_world import World

MISSING = "LocalQueue team-queue doesn't exist"


def held_back(world: World, stage: str, says: str = MISSING) -> str:
    """The stage's Job, suspended by Kueue before it had a pod, or after."""
    job = world.run_until(stage)
    world.jobs[job.name] = replace(
        job, suspended=True, queue="team-queue", queue_says=says, pods=(), started_at=None
    )
    world.rest()
    return job.name


def admit(world: World, name: str) -> None:
    world.jobs[name] = replace(world.jobs[name], suspended=False, queue_says="")
    world.start(name)
    world.rest()


@pytest.mark.fault("F21", "F22")
def test_why_a_job_is_not_admitted_is_told_and_days_in_a_queue_are_no_failure() -> None:
    world = World()
    name = held_back(world, "quantize")
    for _ in range(3):
        assert world.condition("Ready") == ("Unknown", "Queued")
        assert MISSING in world.message("Ready")
        assert "team-queue" in world.message("Reconciling")
        assert world.status["phase"] == "Waiting"
        world.now += 86400.0
        world.rest()
    admit(world, name)
    assert world.status["phase"] == "Quantizing"
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.created.count("quantize:default") == 1


@pytest.mark.fault("F21")
def test_a_job_that_is_evicted_again_and_again_stays_the_same_job() -> None:
    world = World()
    name = world.run_until("quantize").name
    for _ in range(3):
        admit(world, name)
        assert held_back(world, "quantize", "evicted (Preempted): for another") == name
        assert "Preempted" in world.message("Ready")
    admit(world, name)
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.created.count("quantize:default") == 1


def test_a_job_that_a_person_suspended_says_so() -> None:
    world = World()
    job = world.run_until("merge")
    world.jobs[job.name] = replace(job, suspended=True, pods=())
    world.rest()
    assert world.condition("Ready") == ("Unknown", "Queued")
    assert "not by the operator" in world.message("Ready")
