"""Every failure has a typed reason, says what to do, and touches nothing that serves."""

from dataclasses import replace
from typing import Any

import pytest

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import Reason, Stage, StageFailure, StageResult
from lora_operator.actions import CreateJob
from lora_operator.observed import ObservedPod
from lora_operator.planning import plan
from planning_world import SETTINGS, World, serving_world

QUANTIZE_LIMIT = {
    "jobs.stages": [
        {"name": "quantize", "scheduling": {"resources": {"limits": {"memory": "16Gi"}}}}
    ]
}


def failure(reason: Reason = Reason.ACCESS_DENIED, message: str = "do this") -> StageFailure:
    return StageFailure(failure=reason, message=message)


def failing_at(stage: str, outcome: StageFailure | str, exit_code: int, **changes: Any) -> World:
    """A world whose Job of this stage has ended so."""
    world = World(changes=changes)
    world.run_until(stage)
    world.end_stage(stage, outcome, exit_code)
    world.rest()
    return world


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["merge", "quantize", "evaluate", "benchmark", "publish"])
def test_a_refused_input_stalls_with_its_reason_and_message(stage: str) -> None:
    world = failing_at(stage, failure(Reason.INVALID_INPUT, "use another file"), exit_code=2)
    assert world.condition("Stalled") == ("True", "InvalidInput")
    assert world.condition("Ready") == ("False", "InvalidInput")
    assert world.condition("Reconciling")[0] == "False"
    assert world.message("Stalled") == "use another file"
    assert world.stage(stage)["state"] == "Failed"
    assert world.status["phase"] == "Stalled"
    assert world.status["summary"]["reason"] == "InvalidInput"
    assert world.status["observedGeneration"] == 1
    world.now += 86_400
    created = list(world.created)
    world.rest()
    assert world.created == created


def test_a_refused_stage_keeps_its_log_though_its_job_is_not_yet_told_as_failed() -> None:
    world = World()
    world.run_until("merge")
    name = world.end_stage("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    world.jobs[name] = replace(world.jobs[name], failed=False)
    world.reconcile()
    world.reconcile()
    assert name in world.jobs
    assert world.condition("Stalled") == ("True", "InvalidInput")


def test_a_stalled_stage_stays_stalled_when_its_job_is_collected() -> None:
    world = failing_at("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    created = list(world.created)
    world.jobs.clear()
    world.rest()
    assert world.created == created
    assert world.condition("Stalled") == ("True", "InvalidInput")


def test_a_stalled_stage_is_told_again_from_its_job_when_status_was_wiped() -> None:
    world = failing_at("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    world.status = {}
    world.settle()
    assert world.condition("Stalled") == ("True", "InvalidInput")
    assert world.created.count("merge") == 1


@pytest.mark.parametrize(
    "edit", [{"refresh": "again"}, {"jobs.defaults": {"timeout": "9h"}}, {"serving.replicas": 2}]
)
def test_any_change_of_the_spec_tries_a_stalled_stage_again(edit: dict[str, Any]) -> None:
    world = failing_at("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    world.edit(**edit)
    world.settle()
    assert world.created.count("merge") == 2
    assert world.condition("Ready")[0] == "True"


def test_a_stage_that_stalls_again_after_an_edit_is_not_tried_for_ever() -> None:
    world = failing_at("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    world.edit(**{"serving.replicas": 2})
    world.run_until("merge")
    world.end_stage("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    world.settle()
    assert world.created.count("merge") == 2
    assert world.condition("Stalled") == ("True", "InvalidInput")


def test_the_retry_annotation_tries_again_at_once_and_is_recorded() -> None:
    world = failing_at("merge", failure(Reason.INVALID_INPUT), exit_code=2)
    world.ask_for_a_retry("2026-11-22")
    world.reconcile()
    assert world.status["lastHandledRetry"] == "2026-11-22"
    assert world.condition("Stalled")[0] == "False"
    world.settle()
    assert world.created.count("merge") == 2
    assert world.condition("Ready")[0] == "True"


def test_a_retry_of_an_object_that_serves_only_takes_note() -> None:
    world = serving_world()
    world.created.clear()
    world.ask_for_a_retry()
    world.settle()
    assert world.created == []
    assert world.status["lastHandledRetry"] == "now"
    assert world.condition("Ready")[0] == "True"


# --- waiting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("exit_code", [2, 3])
@pytest.mark.parametrize("reason", list(Reason))
def test_every_failure_of_resolve_waits(reason: Reason, exit_code: int) -> None:
    world = failing_at("resolve", failure(reason), exit_code)
    assert world.condition("Ready") == ("Unknown", reason.value)
    assert world.condition("Reconciling") == ("True", reason.value)
    assert world.condition("Stalled")[0] == "False"
    assert world.condition("Resolved") == ("Unknown", reason.value)
    assert world.message("Resolved") == "do this"
    assert world.status["phase"] == "Waiting"
    assert world.status["observedGeneration"] == -1


def test_a_crashed_or_killed_resolve_waits_too() -> None:
    world = failing_at("resolve", "Traceback\nOSError: no route", exit_code=1)
    assert world.condition("Reconciling") == ("True", "StageCrashed")
    assert "OSError: no route" in world.message("Ready")


def test_correcting_the_world_continues_by_itself() -> None:
    world = World()
    world.contents["s3://models/adapter"] = "missing"
    world.reconcile()
    world.end_stage("resolve")
    world.rest()
    assert world.condition("Ready") == ("Unknown", "SourceNotFound")
    assert set(world.created) == {"resolve"}
    world.contents.pop("s3://models/adapter")
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.created.count("resolve") == 2


def test_the_backoff_doubles_from_half_a_minute_to_ten_and_survives_a_restart() -> None:
    world = World()
    world.contents["s3://models/adapter"] = "missing"
    waits = []
    for attempt in range(1, 8):
        world.reconcile()
        world.end_stage("resolve")
        look = world.rest().look_again_seconds
        assert look is not None
        waits.append(look)
        assert world.stage("resolve")["attempt"] == attempt
        world.now += look - 2
        assert not [a for a in world.rest().actions if isinstance(a, CreateJob)]
        world.now += 3
    assert waits == [30, 60, 120, 240, 480, 600, 600]


def test_a_waiting_condition_does_not_flap_while_it_is_tried_again() -> None:
    world = World()
    world.contents["s3://models/adapter"] = "missing"
    world.reconcile()
    for _ in range(5):
        world.end_stage("resolve")
        world.rest()
        world.now += 601
        world.reconcile()
        (name,) = world.unfinished_jobs()
        world.start(name)
        world.reconcile()
        assert world.condition("Ready") == ("Unknown", "SourceNotFound"), "as it is tried again"
    assert [e.reason for e in world.events] == ["SourceNotFound"]


def test_a_waiting_stage_is_tried_again_only_after_resolve_has_passed() -> None:
    world = failing_at("quantize", failure(Reason.ACCESS_DENIED), exit_code=3)
    assert world.condition("Ready") == ("Unknown", "AccessDenied")
    assert world.stage("quantize")["state"] == "Waiting"
    world.created.clear()
    world.now += 31
    world.rest()
    assert world.created == ["resolve"]
    world.end_stage("resolve")
    world.rest()
    assert world.created == ["resolve", "quantize:default"]
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.stage("quantize")["reason"] == ""


def test_the_attempts_of_a_waiting_stage_are_counted() -> None:
    world = failing_at("quantize", failure(Reason.ACCESS_DENIED), exit_code=3)
    for attempt in (2, 3):
        world.now += 601
        world.run_until("quantize")
        world.end_stage("quantize", failure(Reason.ACCESS_DENIED), exit_code=3)
        world.rest()
        assert world.stage("quantize")["attempt"] == attempt


def test_a_working_stage_that_runs_again_is_no_longer_called_waiting() -> None:
    world = failing_at("quantize", failure(Reason.ACCESS_DENIED), exit_code=3)
    world.now += 31
    job = world.run_until("quantize")
    world.start(job.name)
    world.rest()
    assert world.condition("Quantized") == ("Unknown", "Running")
    assert world.status["phase"] == "Quantizing"


def test_what_failed_attempts_held_of_the_accelerators_is_counted() -> None:
    world = World()
    job = world.run_until("quantize")
    world.jobs[job.name] = replace(world.jobs[job.name], accelerators=2)
    world.end(job.name, failure(Reason.STORE_UNREACHABLE), exit_code=3)
    ran_from = replace(world.jobs[job.name].pods[0], container_started_at=world.now - 100)
    world.jobs[job.name] = replace(world.jobs[job.name], pods=(ran_from,))
    world.settle()
    assert world.stage("quantize")["acceleratorSeconds"] == 2 * 100 + 60
    assert world.status["run"]["acceleratorSeconds"] == 2 * 100 + 4 * 60


def test_what_an_attempt_held_that_the_operator_ends_is_counted() -> None:
    world = World()
    job = world.run_until("quantize")
    world.jobs[job.name] = replace(world.jobs[job.name], accelerators=2)
    world.start(job.name, exit_code=137, terminated_reason="OOMKilled")
    world.now += 90
    world.rest()
    assert world.condition("Stalled") == ("True", "OutOfMemory")
    assert world.stage("quantize")["acceleratorSeconds"] == 180
    assert world.status["run"]["acceleratorSeconds"] == 180 + 60, (
        "the merge of this world held some"
    )


@pytest.mark.fault("F17")
def test_a_clock_that_jumped_back_prolongs_no_backoff() -> None:
    world = failing_at("resolve", failure(), exit_code=3)
    world.now -= 86_400
    world.rest()
    assert len(world.created) == 2


# --- killed, crashed, too slow ------------------------------------------------------------------


def test_out_of_memory_names_the_stage_and_the_limit_and_is_not_retried() -> None:
    world = World(changes=dict(QUANTIZE_LIMIT))
    job = world.run_until("quantize")
    world.start(job.name, exit_code=137, terminated_reason="OOMKilled")
    world.rest()
    assert world.condition("Stalled") == ("True", "OutOfMemory")
    assert "quantize" in world.message("Stalled")
    assert "16Gi" in world.message("Stalled")
    assert job.name not in world.jobs, "the Job controller would start another pod"
    created = list(world.created)
    world.settle()
    assert world.created == created


def test_a_crash_after_all_retries_stalls_with_the_last_line_of_its_log() -> None:
    world = failing_at("merge", "Traceback\n  File x\nValueError: bad shape\n", exit_code=1)
    assert world.condition("Stalled") == ("True", "StageCrashed")
    assert "ValueError: bad shape" in world.message("Stalled")


def test_a_stage_that_runs_too_long_is_ended_and_says_how_to_raise_the_limit() -> None:
    world = World(changes={"jobs.defaults": {"timeout": "1h"}})
    job = world.run_until("quantize")
    world.now += 7200
    world.rest()
    assert job.name in world.jobs, "a queue is never a failure"
    world.start(job.name)
    world.now += 3590
    world.rest()
    assert job.name in world.jobs
    world.now += 20
    world.rest()
    assert job.name not in world.jobs
    assert world.condition("Stalled") == ("True", "StageTimedOut")
    assert "timeout" in world.message("Stalled")
    world.edit(**{"jobs.defaults": {"timeout": "3h"}})
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_a_job_past_its_deadline_has_timed_out() -> None:
    world = World()
    job = world.run_until("merge")
    world.jobs[job.name] = replace(
        world.jobs[job.name], failed=True, failed_reason="DeadlineExceeded"
    )
    world.rest()
    assert world.condition("Stalled") == ("True", "StageTimedOut")


# --- held up ------------------------------------------------------------------------------------


HELD_UP = {
    "the image cannot be pulled": (
        {"waiting_reason": "ImagePullBackOff", "waiting_message": "engine:9 not found"},
        ConditionReason.IMAGE_PULL_FAILED,
        "engine:9 not found",
    ),
    "the image has no valid name": (
        {"waiting_reason": "InvalidImageName", "waiting_message": "bad reference"},
        ConditionReason.IMAGE_PULL_FAILED,
        "bad reference",
    ),
    "no node has the accelerator": (
        {"unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."},
        ConditionReason.UNSCHEDULABLE,
        "Insufficient nvidia.com/gpu",
    ),
}


@pytest.mark.fault("F24")
@pytest.mark.parametrize(("pod", "reason", "words"), HELD_UP.values(), ids=HELD_UP.keys())
def test_a_pod_that_cannot_start_is_shown_and_never_times_out_when(
    pod: dict[str, Any], reason: ConditionReason, words: str
) -> None:
    world = World()
    job = world.run_until("quantize")
    world.start(job.name, container_started_at=None, **pod)
    world.rest()
    assert world.condition("Ready") == ("Unknown", reason.value)
    assert words in world.message("Quantized")
    assert world.stage("quantize")["state"] == "Waiting"
    assert world.status["phase"] == "Waiting"
    world.now += 30 * 86_400
    world.rest()
    assert job.name in world.jobs
    world.start(job.name)
    world.rest()
    assert world.condition("Quantized") == ("Unknown", "Running")
    assert world.condition("Reconciling") == ("True", "Progressing")


def test_a_hold_up_is_told_by_one_event() -> None:
    world = World()
    job = world.run_until("merge")
    for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"):
        world.start(
            job.name, container_started_at=None, waiting_reason=reason, waiting_message=reason
        )
        world.reconcile()
    told = [e for e in world.events if e.reason == "ImagePullFailed"]
    assert len(told) == 1
    assert told[0].type == "Warning"


# --- names, specs -------------------------------------------------------------------------------


def test_a_strangers_job_of_our_name_stalls_and_is_not_touched() -> None:
    world = World()
    job = world.run_until("merge")
    theirs = replace(world.jobs[job.name], ours=False, complete=True, uid="theirs")
    world.jobs[job.name] = theirs
    world.settle()
    assert world.condition("Stalled") == ("True", "NameConflict")
    assert job.name in world.message("Stalled")
    assert world.jobs[job.name] == theirs


def test_a_strangers_resolve_job_only_takes_a_number() -> None:
    world = World()
    world.reconcile()
    (name,) = world.jobs
    world.jobs[name] = replace(world.jobs[name], ours=False)
    world.reconcile()
    world.end(next(n for n in world.jobs if n != name))
    world.rest()
    assert world.condition("Resolved")[0] == "True"


def test_a_spec_that_cannot_be_read_stalls_and_leaves_the_rest_alone() -> None:
    world = serving_world()
    told = world.status
    world.spec = world.spec | {"quantization": {"calibration": {"sources": []}}}
    world.generation += 1
    made = world.reconcile()
    assert {type(a).__name__ for a in made.actions} == {"EmitEvent"}
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert world.condition("Available")[0] == "True"
    assert "spec.quantization.calibration.sources" in world.message("Ready")
    assert world.status["observedGeneration"] == 2
    assert world.status["stages"] == told["stages"]
    world.created.clear()
    world.edit()
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.created == []


def test_an_unreadable_spec_is_told_on_the_first_visit() -> None:
    world = World()
    world.spec = {}
    world.reconcile()
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.condition("Merged") == ("Unknown", "Pending")


def test_a_failed_report_is_told_and_the_release_goes_on() -> None:
    world = failing_at("report", "Traceback\nKeyError: 'x'", exit_code=1)
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.stage("report")["state"] == "Failed"
    assert "KeyError" in world.stage("report")["message"]
    assert (
        "reportUri" not in world.status["benchmark"] or not world.status["benchmark"]["reportUri"]
    )


def test_a_waiting_report_is_written_later() -> None:
    world = failing_at("report", failure(Reason.STORE_UNREACHABLE), exit_code=3)
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.status["benchmark"]["reportUri"].startswith("s3://reports/")


def test_a_publish_that_waits_holds_the_rollout() -> None:
    world = failing_at("publish", failure(Reason.ACCESS_DENIED), exit_code=3)
    assert world.condition("Ready") == ("Unknown", "AccessDenied")
    assert world.deployments == {}
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_an_object_that_is_being_deleted_gets_no_plan() -> None:
    world = serving_world()
    seen = world.observe()
    made = plan(replace(seen, parent=replace(seen.parent, deleting=True)), SETTINGS, world.now)
    assert made.actions == ()
    assert made.status.to_json() == world.status


def test_a_failure_of_a_later_generation_leaves_the_last_good_serving() -> None:
    world = serving_world()
    serving = world.service
    world.edit(**{"quantization.gptq": {"groupSize": 64}})
    world.run_until("quantize")
    world.end_stage("quantize", failure(Reason.INVALID_INPUT), exit_code=2)
    world.settle()
    assert world.condition("Ready") == ("False", "InvalidInput")
    assert world.condition("Available") == ("True", "Serving")
    assert world.service == serving


def test_a_result_that_came_before_the_verdict_of_the_pod_counts() -> None:
    # The program wrote its result, and the node died before the Job was judged complete.
    world = World()
    job = world.run_until("merge")
    result = world.program(world.requests[job.name])
    assert isinstance(result, StageResult)
    world.jobs[job.name] = replace(
        world.jobs[job.name], outcome=result, pods=(ObservedPod("p", "p", exit_code=0),)
    )
    world.rest()
    assert world.stage("merge")["state"] != "Succeeded", "the Job is not complete yet"
    world.jobs[job.name] = replace(world.jobs[job.name], complete=True)
    world.settle()
    assert world.worked.count(Stage.MERGE.value) == 1
