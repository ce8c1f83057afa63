"""DESIGN's table "what starts what", row by row, on an object that serves."""

from typing import Any

import pytest

from planning_world import WITH_CANDIDATES, World, serving_world
from signingkeys import KeyPair, provenance

RUNS_AGAIN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "another adapter": (
        {"adapters": [{"uri": "s3://models/other"}]},
        ["merge", "quantize:default", "evaluate:default", "benchmark:default"],
    ),
    "a revision": (
        {"baseModel": {"uri": "s3://models/base", "revision": "2"}},
        ["merge", "quantize:default", "evaluate:default", "benchmark:default"],
    ),
    "quantization": (
        {"quantization.gptq": {"groupSize": 64}},
        ["quantize:default", "evaluate:default", "benchmark:default"],
    ),
    "calibration": (
        {"quantization.calibration.samples": 64},
        ["quantize:default", "evaluate:default", "benchmark:default"],
    ),
    "an evaluation set": (
        {"evaluation.general": {"uri": "s3://models/general.jsonl"}},
        ["evaluate:default"],
    ),
    "a scorer": (
        {"evaluation.task.scorer": {"type": "Contains"}}, ["evaluate:default"],
    ),
    "the workload": ({"benchmark.workload": {"inputTokens": 64}}, ["benchmark:default"]),
    "the precision": ({"benchmark.precision": "1%"}, ["benchmark:default"]),
    "the serving image": ({"serving.image": "engine:2"}, ["benchmark:default"]),
    "engine flags": ({"serving.args": ["--max-model-len", "64"]}, ["benchmark:default"]),
    "the runtime": ({"serving.runtime": "VLLM"}, ["benchmark:default"]),
    "the accelerator": (
        {"serving.accelerator": {"resource": "nvidia.com/gpu"}}, ["benchmark:default"],
    ),
    "benchmark.rerun": ({"benchmark.rerun": "again"}, ["benchmark:default"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "work"), RUNS_AGAIN.values(), ids=RUNS_AGAIN.keys())
def test_only_the_stages_from_there_run_again_for(change: dict[str, Any], work: list[str]) -> None:
    world = serving_world()
    world.worked.clear()
    world.edit(**change)
    world.settle()
    assert world.worked == work
    assert world.condition("Ready")[0] == "True"
    assert world.status["observedGeneration"] == 2


def test_other_keys_have_the_release_signed_again_and_nothing_else() -> None:
    world = serving_world()
    world.created.clear()
    world.edit(provenance=provenance(KeyPair()))
    world.settle()
    assert world.created == ["publish"]
    assert world.condition("Ready")[0] == "True"
    assert len(world.selected) == 1


RUNS_NOTHING: dict[str, dict[str, Any]] = {
    "replicas": {"serving.replicas": 3},
    "scheduling": {"serving.scheduling": {"nodeSelector": {"pool": "gpu"}}},
    "the service": {"serving.service": {"port": 9000}},
    "settings of jobs": {"jobs": {"defaults": {"timeout": "9h"}}},
    "labels of jobs": {"jobs": {"defaults": {"labels": {"team": "a"}}}},
    "maxDuration": {"benchmark.maxDuration": "3h"},
    "the strategy": {"serving.strategy": {"type": "Recreate"}},
    "bake and drain": {"serving.strategy": {"blueGreen": {"bakeTime": "1h"}}},
    "the start deadline": {"serving.strategy": {"startDeadline": "30m"}},
}


@pytest.mark.fault("F28")
@pytest.mark.parametrize("change", RUNS_NOTHING.values(), ids=RUNS_NOTHING.keys())
def test_no_job_at_all_is_created_for(change: dict[str, Any]) -> None:
    world = serving_world()
    world.created.clear()
    world.edit(**change)
    world.settle()
    assert world.created == []
    assert world.condition("Ready")[0] == "True"
    assert len(world.selected) == 1


def test_refresh_resolves_again_and_runs_nothing_when_all_is_as_it_was() -> None:
    world = serving_world()
    world.created.clear()
    # The same bytes have the same digest, whatever the pin's key.
    world.digest_of_uri.update({p["uri"]: p["digest"] for p in world.status["pins"]})
    world.jobs.clear()
    world.edit(refresh="now")
    world.settle()
    assert world.created == ["resolve"]
    assert world.condition("Ready")[0] == "True"


def test_refresh_runs_what_has_changed() -> None:
    world = serving_world()
    world.worked.clear()
    world.digest_of_uri.update({p["uri"]: p["digest"] for p in world.status["pins"]})
    del world.digest_of_uri["s3://models/task.jsonl"]
    world.contents["s3://models/task.jsonl"] = "2"
    world.edit(refresh="now")
    world.settle()
    assert world.worked == ["evaluate:default"]


def test_tightened_gates_are_judged_at_once_without_any_job_that_measures() -> None:
    world = serving_world()
    serving = world.status["summary"]["release"]
    world.created.clear()
    world.edit(**{"gates.taskQuality": {"maxIncrease": "0.1%"}})
    world.reconcile()
    assert world.condition("GatesPassed") == ("False", "GatesFailed")
    world.settle()
    assert world.created == ["report"]
    assert world.condition("Ready") == ("False", "GatesFailed")
    assert world.condition("Available")[0] == "True"
    assert world.service is not None
    assert world.service.release == serving
    assert len(world.selected) == 1


def test_loosened_gates_let_a_rejected_model_serve_without_measuring_again() -> None:
    world = World(task_quality={128: 1.08})
    world.settle()
    assert world.condition("Ready") == ("False", "GatesFailed")
    world.edit(**{"gates.taskQuality": {"maxIncrease": "50%"}})
    world.worked.clear()
    world.settle()
    assert [w for w in world.worked if not w.startswith("benchmark")] == []
    assert world.condition("Ready")[0] == "True"


def test_an_exception_for_the_rejected_artifact_lets_it_serve_and_is_told() -> None:
    world = World(task_quality={128: 1.08})
    world.settle()
    assert world.condition("Ready") == ("False", "GatesFailed")
    digest = world.status["artifact"]["digest"]
    why = {"gate": "taskQuality", "reason": "ticket 4711"}
    world.worked.clear()
    world.edit(overrides=[{"digest": "sha256:" + "0" * 64, **why}])
    world.settle()
    assert world.condition("Ready") == ("False", "GatesFailed"), "it is for another artifact"
    world.edit(overrides=[{"digest": digest, **why}])
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.worked == ["benchmark:default"], "it was not measured before, being rejected"
    [gate] = [g for g in world.status["benchmark"]["gates"] if g["name"] == "taskQuality"]
    assert gate["verdict"] == "Failed"
    assert gate["message"].startswith("accepted: ticket 4711")
    passed = next(c for c in world.status["conditions"] if c["type"] == "GatesPassed")
    assert "accepted by spec.overrides: taskQuality" in passed["message"]


def test_a_failing_candidate_after_tightened_gates_starts_the_next_one() -> None:
    world = serving_world(**WITH_CANDIDATES)
    world.worked.clear()
    world.task_quality = {64: 0.999, 32: 0.999}
    world.edit(**{"gates.taskQuality": {"maxIncrease": "0.1%"}})
    world.settle()
    assert world.worked == ["quantize:g64", "evaluate:g64", "benchmark:g64"]
    assert world.status["run"]["candidate"] == "g64"
    assert [r["number"] for r in world.status["releases"]] == [2, 1]


def test_a_candidate_that_the_store_has_starts_no_job_when_changed_gates_lead_to_it() -> None:
    world = World(changes=dict(WITH_CANDIDATES), task_quality={128: 1.08})
    world.settle()
    assert world.status["run"]["candidate"] == "g64"
    world.recreate()
    world.edit(**{"gates.taskQuality": {"maxIncrease": "10%"}})
    world.settle()
    assert world.status["run"]["candidate"] == "default"
    world.created.clear()
    world.edit(**{"gates.taskQuality": {"maxIncrease": "5%"}})
    world.settle()
    assert world.status["run"]["candidate"] == "g64"
    assert world.created == ["resolve", "report", "publish", "verify"]


@pytest.mark.fault("F26")
def test_an_edit_and_its_reversal_work_once_and_end_where_they_began() -> None:
    world = serving_world()
    first = world.status["summary"]["release"]
    world.worked.clear()
    world.edit(**{"quantization.gptq": {"groupSize": 64}})
    world.settle()
    assert world.status["summary"]["release"] != first
    world.edit(**{"quantization.gptq": {"groupSize": 128}})
    world.settle()
    assert world.status["summary"]["release"] == first
    assert len(world.worked) == 3
    assert [r["number"] for r in world.status["releases"]] == [2, 1]


@pytest.mark.fault("F26")
def test_a_superseded_job_is_deleted_and_a_finished_one_is_kept() -> None:
    world = World()
    old = world.run_until("quantize").name
    world.edit(**{"quantization.gptq": {"groupSize": 64}})
    world.rest()
    assert old in world.jobs, "resolve may still find that it is wanted"
    world.end_stage("resolve")
    world.rest()
    assert old not in world.jobs
    assert sorted(j.stage for j in world.jobs.values()) == ["merge", "quantize"]


def test_a_job_is_left_alone_when_the_edit_asks_for_the_very_same_work() -> None:
    world = World()
    world.digest_of_uri.update(
        {f"s3://models/{n}": f"sha256:{i:064x}" for i, n in enumerate(
            ("base", "adapter", "calibration.jsonl", "task.jsonl"))}
    )  # fmt: skip
    job = world.run_until("quantize")
    world.edit(refresh="now")
    world.rest()
    assert world.jobs[job.name].uid == job.uid
    world.settle()
    assert world.worked.count("quantize:default") == 1


def test_back_and_forth_between_two_specs_no_stage_is_started_whose_result_the_store_has() -> None:
    world = serving_world()
    world.recreate()  # what it serves was made by Jobs that are gone
    world.settle()
    first, second = world.changes, {"benchmark.workload": {"outputTokens": 256}}
    world.edit(**second)
    world.settle()
    world.created.clear()
    for changes in (first, second, first, second, first):
        world.changes = {}
        world.edit(**changes)
        world.settle()
    assert "benchmark:default" not in world.created, world.created
