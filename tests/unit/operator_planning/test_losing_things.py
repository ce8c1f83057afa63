"""Nothing finished runs again: not for a wiped status, a lost Job, a crash or a new object."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lora_api.jobcontract import Stage, StageResult
from lora_operator.actions import CreateJob
from lora_operator.planning import plan
from planning_world import SETTINGS, World, serving_world


@pytest.mark.fault("F39")
def test_a_wiped_status_is_rebuilt_by_one_resolve_job() -> None:
    world = serving_world()
    told = world.status
    world.created.clear()
    world.status = {}
    world.settle()
    assert world.created == ["resolve"]
    assert world.condition("Ready")[0] == "True"
    for part in ("pins", "artifact", "serving", "verified", "benchmark"):
        assert world.status[part] == told[part], part


def test_a_wiped_status_without_any_finished_job_runs_probes_only() -> None:
    world = serving_world()
    world.worked.clear()
    world.status, world.jobs = {}, {}
    world.settle()
    assert world.worked == []
    assert world.condition("Ready")[0] == "True"
    assert world.condition("Quantized") == ("True", "Reused")
    assert world.stage("quantize")["reused"]
    assert len(world.selected) == 1


@pytest.mark.fault("F18", "F19")
def test_finished_jobs_that_are_deleted_are_not_missed() -> None:
    world = serving_world()
    world.created.clear()
    world.jobs.clear()
    world.settle()
    assert world.created == []
    assert world.condition("Ready")[0] == "True"


@pytest.mark.fault("F40")
def test_a_recreated_object_runs_no_working_stage() -> None:
    world = serving_world()
    release = world.status["summary"]["release"]
    world.created.clear()
    world.recreate()
    world.settle()
    assert world.created == ["resolve", "report", "publish", "verify"]
    assert world.status["summary"]["release"] == release


def test_a_running_job_that_vanishes_comes_back_once_the_store_was_asked() -> None:
    world = World()
    job = world.run_until("quantize")
    world.start(job.name)
    world.reconcile()
    world.created.clear()
    del world.jobs[job.name]
    again = world.run_until("quantize")
    assert world.created == ["resolve", "quantize:default"]
    assert again.name == job.name
    world.settle()
    assert world.worked.count("quantize:default") == 1


@pytest.mark.fault("F18", "F19")
def test_a_job_that_vanishes_after_its_work_is_not_run_again() -> None:
    world = World()
    job = world.run_until("quantize")
    world.reconcile()
    world.end(job.name)
    del world.jobs[job.name]
    world.created.clear()
    world.settle()
    assert world.created[0] == "resolve"
    assert "quantize:default" not in world.created
    assert world.worked.count("quantize:default") == 1


@pytest.mark.fault("F19")
def test_a_complete_job_without_a_readable_result_sends_resolve_and_never_the_stage() -> None:
    world = World()
    job = world.run_until("quantize")
    world.lose_result(job.name)
    world.created.clear()
    world.settle()
    assert world.created[0] == "resolve"
    assert "quantize:default" not in world.created
    assert world.condition("Ready")[0] == "True"


def test_the_store_is_asked_anew_even_if_the_operator_died_before_it_could_ask() -> None:
    world = World()
    world.reconcile()
    world.end_stage("resolve")
    world.reconcile()
    (merge,) = world.unfinished_jobs()
    world.lose_result(merge)
    world.reconcile_and_crash(0)
    assert any(j.stage == "resolve" and j.complete for j in world.jobs.values())
    world.settle()
    assert world.created.count("resolve") == 2, "the old answer does not know of the merge"
    assert world.condition("Ready")[0] == "True"
    assert world.created.count("merge") == 1


def test_a_complete_job_whose_result_the_store_lacks_stalls_instead_of_running_for_ever() -> None:
    world = World()
    job = world.run_until("quantize")
    world.lose_result(job.name)
    world.store.pop(job.input_hash)
    world.settle()
    assert world.condition("Stalled") == ("True", "StageCrashed")
    assert world.created.count("quantize:default") == 1
    world.ask_for_a_retry()
    world.settle()
    assert world.condition("Ready")[0] == "True"


@pytest.mark.fault("F32")
@pytest.mark.parametrize(
    "forged",
    [
        StageResult(stage=Stage.QUANTIZE, input_hash="sha256:other", digest="sha256:" + "0" * 64),
        StageResult(stage=Stage.MERGE, input_hash="", digest="sha256:" + "0" * 64),
    ],
    ids=["of other inputs", "of another stage"],
)
def test_a_result_that_is_not_of_this_very_work_is_not_taken(forged: StageResult) -> None:
    world = World()
    job = world.run_until("quantize")
    world.end(job.name)
    truth = world.store[job.input_hash].digest
    world.jobs[job.name] = replace(world.jobs[job.name], outcome=forged)
    world.settle()
    assert world.stage("quantize")["digest"] == truth


@pytest.mark.fault("F5")
def test_a_view_without_the_new_job_creates_it_under_the_same_name() -> None:
    world = World()
    before = world.observe()
    created = [a for a in world.reconcile().actions if isinstance(a, CreateJob)]
    blind = replace(world.observe(), jobs=before.jobs)
    again = [a for a in plan(blind, SETTINGS, world.now).actions if isinstance(a, CreateJob)]
    assert [a.name for a in again] == [a.name for a in created]


def test_a_new_attempt_of_a_probe_takes_the_lowest_free_number() -> None:
    world = World()
    world.contents["s3://models/adapter"] = "missing"
    world.reconcile()
    first = world.end_stage("resolve")
    world.rest()
    world.now += 31
    world.reconcile()
    (second,) = world.unfinished_jobs()
    assert second != first
    assert list(world.jobs) == [second], "the failed one is deleted beside"
    world.end_stage("resolve")
    world.rest()
    world.now += 61
    world.reconcile()
    assert world.unfinished_jobs() == [first]


def test_two_failed_attempts_do_not_take_turns_at_being_news() -> None:
    world = World()
    world.contents["s3://models/adapter"] = "missing"
    world.reconcile()
    world.end_stage("resolve")
    world.rest()
    world.now += 31
    world.reconcile_without_status(1)  # a new attempt beside the failed one
    assert len(world.jobs) == 2
    world.end_stage("resolve")
    world.rest()
    assert world.stage("resolve")["attempt"] == 2
    world.contents.clear()
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert not [j for j in world.jobs.values() if j.stage == "resolve"]


@pytest.mark.fault("F1")
@pytest.mark.parametrize("crash", [World.reconcile_and_crash, World.reconcile_without_status])
def test_every_prefix_of_every_plan_may_be_cut_off(crash: Callable[[World, int], None]) -> None:
    reference, world = serving_world(), World()
    for _ in range(60):
        for prefix in range(len(world.plan().actions) + 1):
            crash(world, prefix)
        writes = world.writes
        world.reconcile()
        if world.writes == writes and not world.step_forward():
            break
    world.settle()
    assert world.worked == reference.worked
    assert world.status["summary"] == reference.status["summary"]
    assert world.selected == reference.selected
