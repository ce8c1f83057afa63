"""`serving.pin`: an earlier release comes back from its record, verified, and no stage runs."""

from typing import Any

import pytest

from lora_api.jobcontract import Reason, StageFailure
from planning_world import World, serving_world
from signingkeys import KeyPair, provenance

NEXT = {"quantization.gptq": {"groupSize": 64}}


def with_two_releases(**changes: Any) -> tuple[World, str, str]:
    """A world that serves its second release alone; ids of both."""
    world = serving_world(**changes)
    world.edit(**NEXT)
    world.settle()
    second, first = (r["id"] for r in world.status["releases"])
    assert len(world.deployments) == 1
    world.created.clear()
    world.worked.clear()
    return world, first, second


def serves(world: World) -> str:
    assert world.service is not None
    return world.service.release


def test_a_pinned_release_is_read_from_its_record_verified_and_switched_to() -> None:
    world, first, second = with_two_releases()
    seen = list(world.selected)
    world.edit(**{"serving.pin": first})
    world.run_until("recall")
    assert serves(world) == second
    assert world.status["phase"] == "Resolving"
    world.run_until("verify")
    assert serves(world) == second, "not before it is verified"
    world.settle()
    assert world.created == ["recall", "verify"]
    assert world.worked == []
    assert world.selected == [*seen, first]
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Published") == ("True", "Succeeded")
    assert world.status["observedGeneration"] == 3
    assert [r["id"] for r in world.status["releases"]] == [second, first]
    assert [d.release for d in world.deployments.values()] == [first]


def test_taking_the_pin_out_returns_to_the_newest_that_passed_without_measuring() -> None:
    world, first, second = with_two_releases()
    world.edit(**{"serving.pin": first})
    world.settle()
    world.created.clear()
    world.edit(**{"serving.pin": ""})
    world.settle()
    assert world.created == ["verify"]
    assert serves(world) == second
    assert world.condition("Ready")[0] == "True"


def test_while_it_bakes_a_pin_to_the_former_release_needs_no_job_at_all() -> None:
    world = serving_world(**{"serving.strategy": {}})
    first = serves(world)
    world.edit(**NEXT)
    for _ in range(100):
        writes = world.writes
        world.reconcile()
        if world.writes == writes and not world.step_forward():
            break
    assert serves(world) != first
    world.created.clear()
    world.edit(**{"serving.pin": first})
    world.rest()
    assert serves(world) == first
    assert world.created == []
    assert world.condition("Ready")[0] == "True"


def test_where_keys_are_trusted_not_even_a_release_that_is_there_is_switched_to_unsigned() -> None:
    signed = {"provenance": provenance(KeyPair())}
    world = serving_world(**{"serving.strategy": {}}, **signed)
    first = serves(world)
    world.edit(**NEXT)
    world.run_until("verify")
    world.end_stage("verify")
    world.rest()
    second = serves(world)
    assert second != first
    assert len(world.deployments) == 2
    world.created.clear()
    world.edit(**{"serving.pin": first})
    world.run_until("recall")
    unsigned = StageFailure(failure=Reason.PROVENANCE_MISSING, message="nobody has; publish it")
    world.end_stage("recall", unsigned, exit_code=3)
    world.rest()
    assert serves(world) == second
    assert world.condition("Ready") == ("Unknown", "ProvenanceMissing")
    world.now += 60
    world.run_until("recall")
    world.end_stage("recall")
    world.rest()
    assert serves(world) == first
    assert world.created == ["recall", "recall"]
    world.jobs.clear()
    world.rest()
    assert world.created == ["recall", "recall"], "its word is on record"
    assert world.condition("Ready") == ("True", "Serving")


def test_what_was_recalled_for_some_keys_is_asked_again_for_others() -> None:
    world, first, _ = with_two_releases(provenance=provenance(KeyPair()))
    world.edit(**{"serving.pin": first})
    world.settle()
    assert serves(world) == first
    world.created.clear()
    world.edit(provenance=provenance(KeyPair()))
    world.settle()
    assert world.created == ["recall"]
    assert serves(world) == first


def test_a_stage_under_way_is_ended_for_nothing_it_makes_would_serve() -> None:
    world = serving_world()
    first = serves(world)
    world.edit(**NEXT)
    job = world.run_until("quantize")
    world.edit(**{"serving.pin": first})
    world.settle()
    assert job.name not in world.jobs
    assert world.condition("Ready") == ("True", "Serving")
    assert serves(world) == first
    world.edit(**{"serving.pin": ""})
    world.settle()
    assert world.worked.count("quantize:default") == 2
    assert serves(world) != first


def test_a_pin_works_while_the_sources_cannot_be_read_and_the_status_is_lost() -> None:
    world, first, _ = with_two_releases()
    world.contents["s3://models/adapter"] = "missing"
    world.status, world.jobs = {}, {}
    world.edit(refresh="now", **{"serving.pin": first})
    world.settle()
    assert serves(world) == first
    assert world.condition("Ready")[0] == "True"
    assert set(world.created) == {"recall", "verify"}


def test_a_recall_job_that_was_collected_before_its_result_was_used_runs_again() -> None:
    world, first, _ = with_two_releases()
    world.edit(**{"serving.pin": first})
    world.end(world.run_until("recall").name)
    world.write_status(world.plan())  # its result is on record, and nothing else was done
    world.jobs.clear()
    world.settle()
    assert world.created.count("recall") == 2
    assert serves(world) == first


def test_a_pin_to_nothing_stalls_and_what_serves_serves_on() -> None:
    world, _, second = with_two_releases()
    world.edit(**{"serving.pin": "00000000"})
    world.run_until("recall")
    unknown = StageFailure(failure=Reason.SOURCE_NOT_FOUND, message="no such release; pin another")
    world.end_stage("recall", unknown, exit_code=2)
    world.settle()
    assert world.condition("Ready") == ("False", "SourceNotFound")
    assert world.condition("Stalled") == ("True", "SourceNotFound")
    assert world.condition("Available") == ("True", "Serving")
    assert serves(world) == second
    assert world.created == ["recall"]


@pytest.mark.parametrize("gates", [{"taskQuality": {"maxIncrease": "0.1%"}}])
def test_gates_that_the_newest_would_fail_do_not_keep_a_pinned_release_from_being_ready(
    gates: dict[str, Any],
) -> None:
    world, first, _ = with_two_releases()
    world.edit(gates=gates, **{"serving.pin": first})
    world.settle()
    assert serves(world) == first
    assert world.condition("Ready") == ("True", "Serving")
