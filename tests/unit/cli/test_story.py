"""What the plugin makes of objects as the planner writes them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.jobcontract import OCCASIONAL_STAGES, Progress, Reason, Stage, StageFailure
from lora_api.runbooks import RUNBOOKS
from lora_cli.story import (
    NOT_STARTED,
    Story,
    UnreadableStatus,
    acceptable_gates,
    duration,
    log_of,
    releases_of,
    status_of,
    story_of,
)
from planning_world import World, serving_world
from recorded_objects import PHASES, document


def told(world: World) -> Story:
    return story_of(document(world), world.now)


def waiting_world() -> World:
    world = World()
    world.reconcile()
    missing = StageFailure(failure=Reason.CREDENTIALS_MISSING, message="Secret s3: create it")
    world.end_stage("resolve", missing, exit_code=3)
    world.rest()
    return world


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_of_an_objects_life_has_a_story(phase: str) -> None:
    world = PHASES[phase].story()
    story = told(world)
    assert story.phase == (world.status or {}).get("phase", "Pending")
    assert Story.model_validate(story.to_json()) == story
    for step in story.next_steps:
        explained = step.rpartition("kubectl lora explain ")[2]
        assert "explain" not in step or explained in RUNBOOKS


@pytest.mark.parametrize("phase", PHASES)
def test_whoever_is_not_there_is_told_what_comes_next(phase: str) -> None:
    story = told(PHASES[phase].story())
    is_over = story.phase in ("Rejected", "Stalled", "Waiting")
    assert bool(story.next_steps) or not is_over, story


def test_an_object_that_waits_says_why_and_when_it_is_tried_again() -> None:
    story = told(waiting_world())
    assert (story.phase, story.reason) == ("Waiting", "CredentialsMissing")
    assert story.message == "Secret s3: create it"
    explained, tried_again = story.next_steps
    assert explained.endswith("kubectl lora explain CredentialsMissing")
    assert tried_again.startswith("it is tried again by itself in 30s")
    assert tried_again.endswith("kubectl lora retry demo")


def test_a_back_off_that_is_over_is_never_told_as_a_negative_time() -> None:
    world = waiting_world()
    story = story_of(document(world), world.now + 3600)
    assert any("in 0s" in step for step in story.next_steps)


def test_a_running_stage_tells_its_progress_and_the_time_left() -> None:
    world = World()
    world.run_until("quantize")
    (job,) = (name for name, j in world.jobs.items() if j.stage == "quantize")
    world.start(job)
    world.rest()
    found = document(world)
    (entry,) = (s for s in found["status"]["stages"] if s["name"] == "quantize")
    progress = Progress(done=7, total=28, unit="layers", eta_seconds=90)
    entry["progress"] = progress.to_json() | {"message": "of a newer operator"}
    story = story_of(found, world.now + 61)
    (line,) = (line for line in story.stages if line.name == "quantize")
    assert (line.state, line.progress, line.eta_seconds) == ("Running", "7/28 layers", 90)
    assert line.seconds is not None
    assert line.seconds >= 61


def test_the_stages_that_are_to_come_are_listed_until_the_run_is_over() -> None:
    world = World()
    world.run_until("merge")
    names = [line.name for line in told(world).stages]
    assert names == [stage for stage in Stage if stage not in OCCASIONAL_STAGES]
    assert [line.state for line in told(world).stages[2:]] == [NOT_STARTED] * 6
    assert NOT_STARTED not in {line.state for line in told(serving_world()).stages}


def test_a_rejected_object_points_to_its_report_and_names_the_gate() -> None:
    story = told(PHASES["gates-failed"].story())
    assert (story.phase, story.verdict) == ("Rejected", "Failed")
    assert any(g.name == "taskQuality" and g.verdict == "Failed" for g in story.gates)
    assert story.next_steps[0].endswith("kubectl lora report demo")
    assert story.next_steps[-1].endswith("kubectl lora approve demo taskQuality --reason TEXT")


def test_no_approval_is_offered_that_would_let_nothing_serve() -> None:
    found = document(PHASES["gates-failed"].story())
    gates = found["status"]["benchmark"]["gates"]
    other = next(g for g in gates if g["name"] == "weightsSize")
    gates.append(other | {"name": "custom-floor", "verdict": "Failed"})
    assert acceptable_gates(status_of(found)) == [], "a gate of one's own has no override"
    gates[-1] = other | {"verdict": "Error"}
    assert acceptable_gates(status_of(found)) == []
    gates[-1] = other | {"verdict": "Failed", "mode": "DryRun"}
    assert acceptable_gates(status_of(found)) == ["taskQuality"]


def test_an_object_that_serves_needs_nothing() -> None:
    world = serving_world()
    story = told(world)
    assert (story.ready, story.next_steps) == ("True", [])
    assert story.serving is not None
    assert story.serving.ready_replicas == story.serving.replicas == 1


def test_an_edit_that_nobody_looked_at_is_not_told_as_the_old_verdict() -> None:
    world = serving_world()
    world.edit(**{"serving.replicas": 3})
    story = told(world)
    assert not story.is_seen
    assert "has not looked at this generation" in story.next_steps[0]


def test_a_denied_right_is_told_though_the_release_serves() -> None:
    story = told(PHASES["serving-and-denied-a-right"].story())
    assert (story.ready, story.reason) == ("True", "ApiDenied")
    assert "no quota" in story.message
    assert story.next_steps[0].endswith("kubectl lora explain ApiDenied")


def test_a_pod_without_a_node_is_told_though_the_release_serves() -> None:
    found = document(serving_world())
    held = {"status": "True", "reason": "NoCapacity", "message": "needs more room"}
    for condition in found["status"]["conditions"]:
        condition.update(held if condition["type"] == "Reconciling" else {})
    story = story_of(found, 0.0)
    assert (story.ready, story.reason, story.message) == ("True", "NoCapacity", "needs more room")
    assert story.next_steps[0].endswith("kubectl lora explain NoCapacity")


@pytest.mark.parametrize("start", [World, serving_world])
def test_a_suspended_object_says_how_it_goes_on(start: Callable[[], World]) -> None:
    world = start()
    world.edit(suspend=True)
    world.settle()
    assert told(world).next_steps == ["go on: kubectl lora resume demo"]


def test_fields_of_a_newer_operator_are_left_out_and_new_words_are_refused() -> None:
    found = document(serving_world())
    found["status"]["somethingNew"] = {"a": 1}
    found["status"]["stages"][0]["another"] = 2
    assert story_of(found, 0.0).phase == "Serving"
    found["status"]["phase"] = "Dancing"
    with pytest.raises(UnreadableStatus, match="upgrade it"):
        status_of(found)


def test_the_log_of_what_runs_comes_before_that_of_what_is_done() -> None:
    world = World()
    world.run_until("quantize")
    world.rest()
    entry = log_of(status_of(document(world)), "")
    assert entry is not None
    assert entry.name == "quantize"
    named = log_of(status_of(document(world)), "merge")
    assert named is not None
    assert named.job.startswith("demo-merge-")
    assert log_of(status_of(document(world)), "verify") is None


def test_the_log_of_a_failed_stage_is_the_one_that_is_meant() -> None:
    entry = log_of(status_of(document(PHASES["refused-input"].story())), "")
    assert entry is not None
    assert (entry.name, entry.state) == ("merge", "Failed")


def test_the_release_that_serves_is_marked() -> None:
    world = serving_world()
    first = world.status["serving"]["release"]
    world.edit(**{"quantization.gptq": {"bits": 4, "groupSize": 64}})
    world.settle()
    found = releases_of(status_of(document(world)))
    assert [(r.number, serves) for r, serves in found] == [(2, True), (1, False)]
    assert found[1][0].id == first


@given(st.integers(min_value=0, max_value=10**6))
def test_a_duration_is_short_and_loses_less_than_a_minute(seconds: int) -> None:
    text = duration(seconds)
    units: dict[str, int] = {"h": 3600, "m": 60, "s": 1}
    read: Any = sum(int(part[:-1]) * units[part[-1]] for part in text.split())
    assert 0 <= seconds - read < 60
    assert len(text.split()) <= 2
