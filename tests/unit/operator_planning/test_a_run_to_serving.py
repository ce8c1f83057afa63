"""From an applied object to a served release, and what stays quiet afterwards."""

from lora_api.conditions import ConditionType
from lora_operator.actions import ApplyDeployment, ApplyService, CreateJob
from planning_world import WITH_CANDIDATES, World, serving_world

WORK = ["merge", "quantize:default", "evaluate:default", "benchmark:default"]


def test_a_good_model_is_served_after_every_stage_ran_once() -> None:
    world = serving_world()
    assert world.created == ["resolve", *WORK, "report", "publish", "verify"]
    assert world.worked == WORK
    assert len(world.selected) == 1
    assert world.status["phase"] == "Serving"


def test_the_first_look_starts_only_resolve_and_writes_every_condition() -> None:
    world = World()
    made = world.reconcile()
    assert [a.request.call.stage for a in made.actions if isinstance(a, CreateJob)] == ["resolve"]
    assert {c["type"] for c in world.status["conditions"]} == {t.value for t in ConditionType}
    told = {c["type"]: c["status"] for c in world.status["conditions"]}
    assert told.pop("Reconciling") == "True"
    assert told.pop("Stalled") == "False"
    assert set(told.values()) == {"Unknown"}
    assert world.status["phase"] == "Resolving"
    assert world.status["observedGeneration"] == -1


def test_a_settled_object_is_left_alone() -> None:
    world = serving_world()
    writes, events = world.writes, len(world.events)
    made = world.plan()
    assert {type(a) for a in made.actions} == {ApplyDeployment, ApplyService}
    assert made.status.to_json() == world.status
    assert made.look_again_seconds is None
    world.now += 86_400
    world.rest()
    assert (world.writes, len(world.events)) == (writes, events)


def test_every_transition_has_one_event_with_the_reason_of_its_condition() -> None:
    world = serving_world()
    assert [e.message.split(" ")[0] for e in world.events] == [
        "resolve", "merge", "quantize", "evaluate", "benchmark", "5/5", "publish", "verify",
        "release",
    ]  # fmt: skip
    assert {e.type for e in world.events} == {"Normal"}
    assert world.events[-1].reason == world.condition("Ready")[1] == "Serving"


def test_a_whole_run_needs_few_writes() -> None:
    # 8 Jobs, the deletion of resolve's, Deployment and Service; the rest are status writes.
    assert serving_world().writes <= 35


def test_the_summary_tells_the_story_on_one_line() -> None:
    world = serving_world()
    release = world.status["releases"][0]
    assert world.status["summary"] == {
        "gates": "5/5", "quality": "+1.0%", "size": "-60%", "speed": "+50%",
        "release": release["id"], "reason": "",
    }  # fmt: skip
    assert release["number"] == 1


def test_status_says_what_was_found_and_where_it_lies() -> None:
    world = serving_world()
    status = world.status
    assert status["observedGeneration"] == 1
    assert [p["source"] for p in status["pins"]] == ["base", "adapter0", "calibration0", "task"]
    assert status["image"] == "serve@sha256:1"
    assert status["run"]["acceleratorSeconds"] == 240
    assert status["benchmark"]["reportUri"].startswith("s3://reports/")
    assert {r["metric"] for r in status["benchmark"]["results"]} >= {
        "Perplexity/task", "OutputTokensPerSecond@1", "PeakMemoryBytes",
    }  # fmt: skip
    artifact = status["artifact"]
    assert artifact["uri"].endswith(artifact["digest"].replace(":", "-"))
    assert status["serving"]["url"] == "http://demo.team.svc:8000/v1"


def test_each_job_is_told_all_it_needs() -> None:
    world = serving_world()
    by_stage = {r.call.stage.value: r for r in world.requests.values()}
    resolve = by_stage["resolve"]
    assert resolve.spec is not None
    assert resolve.default_image == "serve@sha256:1"
    assert resolve.store.scope == "team"
    assert set(resolve.sources) == {"base", "adapter0", "calibration0", "task"}
    assert {s.connection for s in resolve.sources.values()} == {"models"}
    assert [c.name for c in resolve.connections] == ["models"]
    merge = by_stage["merge"]
    assert set(merge.sources) == set(resolve.sources)
    assert all(merge.sources[name].digest == pin for name, pin in merge.call.parents.items())
    assert merge.sources["base"].key == resolve.sources["base"].key
    assert merge.limits == {"maxDuration": "2h"}
    report = by_stage["report"]
    assert report.judgement is not None
    assert report.run_id == world.status["run"]["id"]
    assert set(report.call.parents) == {"merge", "quantize", "evaluate", "benchmark"}
    publish = by_stage["publish"]
    assert publish.release is not None
    assert publish.release.id == world.status["summary"]["release"]
    verify = by_stage["verify"]
    assert [e.url for e in verify.endpoints] == ["http://10.0.0.1:8000"]
    assert verify.call.parents["benchmark"] == by_stage["benchmark"].call.input_hash


def test_the_next_recipe_is_tried_while_quality_fails() -> None:
    world = World(changes=dict(WITH_CANDIDATES), task_quality={128: 1.3, 64: 1.2})
    world.settle()
    assert [w for w in world.worked if w.startswith("quantize")] == [
        "quantize:default", "quantize:g64", "quantize:g32",
    ]  # fmt: skip
    assert [w for w in world.worked if w.startswith("benchmark")] == ["benchmark:g32"]
    assert world.condition("Ready")[0] == "True"
    assert world.status["run"]["candidate"] == "g32"


def test_progress_and_the_running_job_are_told() -> None:
    from dataclasses import replace

    from lora_api.jobcontract import Progress

    world = World()
    job = world.run_until("quantize")
    world.start(job.name)
    world.jobs[job.name] = replace(
        world.jobs[job.name], progress=Progress(done=3, total=28, unit="layers", eta_seconds=60)
    )
    world.reconcile()
    stage = world.stage("quantize")
    assert stage["state"] == "Running"
    assert stage["progress"] == {"done": 3, "total": 28, "unit": "layers", "etaSeconds": 60}
    assert world.condition("Quantized") == ("Unknown", "Running")
    assert world.condition("Ready") == ("Unknown", "Progressing")
    assert world.status["phase"] == "Quantizing"
    assert world.plan().look_again_seconds == 5
