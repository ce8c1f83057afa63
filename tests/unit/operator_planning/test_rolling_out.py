"""The serving side: verified before it is selected; the last good until then; no loops."""

from dataclasses import replace

import pytest

from lora_api.jobcontract import Reason, StageFailure
from lora_operator.actions import ApplyDeployment, ApplyService, CreateJob, GiveUpRelease
from lora_operator.observed import ObservedPod, ObservedService
from planning_world import World, lose_a_pod, serving_world

NEXT = {"quantization.gptq": {"groupSize": 64}}
REFUSED = StageFailure(failure=Reason.VERIFICATION_FAILED, message="other answers than recorded")


def until_candidate(world: World) -> str:
    """Go on until a Deployment that does not serve is there; its name."""
    world.serving_pods_start = False
    for _ in range(60):
        writes = world.writes
        world.reconcile()
        if world.unready_deployments() and world.writes == writes:
            return world.unready_deployments()[0]
        if world.writes == writes:
            world.step_forward()
    raise AssertionError(world.told())


def give_up_by_verification(world: World) -> str:
    """Let the candidate come up and fail its verification; its name."""
    name = until_candidate(world)
    world.make_ready(name)
    world.rest()
    world.end_stage("verify", REFUSED, exit_code=2)
    world.rest()
    return name


def test_a_first_release_gets_its_service_only_after_it_is_verified() -> None:
    world = World()
    name = until_candidate(world)
    assert world.service is None
    assert world.condition("Ready") == ("Unknown", "WaitingForPods")
    assert world.condition("Available") == ("Unknown", "NoRelease")
    assert world.status["phase"] == "RollingOut"
    world.make_ready(name)
    world.rest()
    assert world.service is None
    assert world.status["phase"] == "Verifying"
    world.end_stage("verify")
    world.rest()
    assert world.service is not None
    assert world.service.release == world.deployments[name].release
    assert world.condition("Ready")[0] == "True"


def test_the_last_good_release_serves_until_its_successor_is_verified() -> None:
    world = serving_world()
    first = world.service
    assert first is not None
    world.edit(**NEXT)
    name = until_candidate(world)
    assert world.service == first
    assert world.status["serving"]["candidate"] == world.deployments[name].release
    assert len(world.deployments) == 2
    world.make_ready(name)
    world.rest()
    assert world.service == first
    world.end_stage("verify")
    made = world.reconcile()
    assert [type(a).__name__ for a in made.actions if isinstance(a, ApplyService)]
    assert len(world.deployments) == 2, (
        "the old one goes once the Service was seen to select the new"
    )
    world.rest()
    assert list(world.deployments) == [name]
    assert world.status["releases"][0]["number"] == 2


def test_the_old_release_stays_while_the_new_one_is_not_available() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = until_candidate(world)
    world.make_ready(name)
    world.rest()
    world.end_stage("verify")
    world.reconcile()
    world.deployments[name] = replace(world.deployments[name], available=False, ready_replicas=0)
    world.reconcile()
    assert len(world.deployments) == 2
    assert world.condition("Ready")[0] == "Unknown"


def test_all_replicas_are_asked() -> None:
    world = World(changes={"serving.replicas": 3})
    name = until_candidate(world)
    world.make_ready(name)
    d = world.deployments[name]
    world.deployments[name] = replace(d, ready_replicas=2)
    world.rest()
    assert "verify" not in world.created
    world.deployments[name] = d
    world.rest()
    (request,) = [r for r in world.requests.values() if r.call.stage == "verify"]
    assert len(request.endpoints) == 3


def test_a_failed_gate_leaves_the_serving_release_alone() -> None:
    world = serving_world()
    first = world.service
    world.task_quality = {64: 1.5}
    world.edit(**NEXT)
    world.settle()
    assert world.service == first
    assert len(world.deployments) == 1
    assert world.condition("Ready") == ("False", "GatesFailed")
    assert world.condition("Stalled") == ("True", "GatesFailed")
    assert world.condition("Available") == ("True", "Serving")
    assert "taskQuality" in world.message("GatesPassed")
    assert world.status["phase"] == "Rejected"
    assert world.status["benchmark"]["verdict"] == "Failed"
    assert world.status["benchmark"]["reportUri"]
    assert world.status["observedGeneration"] == 2


def test_the_serving_release_keeps_its_own_recipe_when_a_later_one_is_rejected() -> None:
    world = serving_world()
    recipe = next(iter(world.deployments.values())).recipe
    world.task_quality = {64: 1.5}
    world.edit(**NEXT, **{"serving.image": "engine:2", "serving.replicas": 4})
    world.settle()
    (serving,) = world.deployments.values()
    assert serving.recipe == recipe
    assert serving.replicas == 4


def test_a_refused_verification_gives_the_release_up_once_and_the_last_good_stays() -> None:
    world = serving_world()
    first = world.service
    world.edit(**NEXT)
    name = give_up_by_verification(world)
    assert world.deployments[name].gave_up == "VerificationFailed"
    assert world.deployments[name].replicas == 0
    assert world.service == first
    assert world.condition("Ready") == ("False", "VerificationFailed")
    assert world.message("Ready") == "other answers than recorded"
    created = list(world.created)
    world.settle()
    assert world.created == created
    assert name in world.deployments
    world.edit(**{"serving.replicas": 2})
    world.settle()
    assert world.created == created, "another number of replicas does not make the model another"
    assert world.message("Ready") == "other answers than recorded"


def test_a_given_up_release_stays_given_up_when_status_is_wiped() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = give_up_by_verification(world)
    verifications = world.created.count("verify")
    world.status, world.jobs = {}, {}
    world.settle()
    assert world.deployments[name].gave_up == "VerificationFailed"
    assert world.condition("Ready") == ("False", "VerificationFailed")
    assert world.created.count("verify") == verifications


def test_a_retry_brings_a_given_up_release_up_anew() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = give_up_by_verification(world)
    old = world.deployments[name].uid
    world.ask_for_a_retry()
    world.serving_pods_start = True
    world.settle()
    assert world.deployments[name].uid != old
    assert world.condition("Ready")[0] == "True"


def test_a_retry_never_deletes_what_somebody_made_the_service_select() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = give_up_by_verification(world)
    uid = world.deployments[name].uid
    world.service = ObservedService("demo", world.deployments[name].release)
    world.ask_for_a_retry()
    world.reconcile()
    assert world.deployments[name].uid == uid


@pytest.mark.fault("F36")
def test_the_start_deadline_runs_from_the_first_container_start_and_counts_crash_loops() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = until_candidate(world)
    world.now += 30 * 86_400
    world.rest()
    assert not world.deployments[name].gave_up, "no node, no pod: the deadline does not run"
    started = world.now
    for minute in range(0, 15, 3):
        world.now = started + minute * 60
        crashing = ObservedPod("p", "p", container_started_at=world.now, restarts=minute)
        world.deployments[name] = replace(world.deployments[name], pods=(crashing,))
        world.rest()
        assert not world.deployments[name].gave_up
    world.now = started + 15 * 60 + 5
    world.rest()
    assert world.deployments[name].gave_up == "StartDeadlineExceeded"
    assert world.condition("Ready") == ("False", "StartDeadlineExceeded")
    assert "startDeadline" in world.message("Ready")
    assert world.condition("Available")[0] == "True"
    world.settle()
    assert world.deployments[name].gave_up == "StartDeadlineExceeded"


def test_a_release_that_was_too_slow_is_started_again_when_the_spec_changes() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = until_candidate(world)
    pod = ObservedPod("p", "p", container_started_at=world.now)
    world.deployments[name] = replace(world.deployments[name], pods=(pod,))
    world.rest()
    world.now += 1000
    world.rest()
    assert world.deployments[name].gave_up
    world.edit(**{"serving.strategy": {"startDeadline": "1h"}})
    world.serving_pods_start = True
    world.settle()
    assert world.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (ObservedPod("p", "p", unschedulable="node(s) had untolerated taints"), "Unschedulable"),
        (ObservedPod("p", "p", unschedulable="2 Insufficient memory"), "NoCapacity"),
        (ObservedPod("p", "p", waiting_reason="ErrImagePull"), "ImagePullFailed"),
        (
            ObservedPod(
                "p",
                "p",
                waiting_reason="CrashLoopBackOff",
                termination_message='{"failure":"AccessDenied","message":"grant read access"}',
            ),
            "AccessDenied",
        ),
    ],
    ids=["no node", "no room", "no image", "the model cannot be fetched"],
)
def test_what_holds_the_candidates_pods_up_is_told(pod: ObservedPod, reason: str) -> None:
    world = World()
    name = until_candidate(world)
    world.deployments[name] = replace(world.deployments[name], pods=(pod,))
    world.rest()
    assert world.condition("Ready") == ("Unknown", reason)
    assert world.status["phase"] == "Waiting"


@pytest.mark.fault("F24")
def test_a_missing_accelerator_is_counted_and_is_no_word_on_the_model() -> None:
    world = serving_world(
        **{
            "serving.accelerator": {"resource": "nvidia.com/gpu"},
            "serving.replicas": 3,
            "serving.scheduling": {"resources": {"limits": {"nvidia.com/gpu": "2"}}},
        }
    )
    world.edit(**NEXT)
    name = until_candidate(world)
    full = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."
    pods = tuple(ObservedPod(f"p{i}", "p", unschedulable=full) for i in range(2))
    world.deployments[name] = replace(world.deployments[name], pods=pods)
    world.now += 30 * 86_400
    world.rest()
    assert world.condition("Ready") == ("Unknown", "NoCapacity")
    assert "needs 4 more nvidia.com/gpu for 2 pods" in world.message("Ready")
    assert not world.deployments[name].gave_up
    assert world.condition("Available")[0] == "True"
    world.serving_pods_start = True
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_autoscalers_are_told_the_pods_of_the_serving_release_only() -> None:
    world = serving_world()
    world.edit(**NEXT)
    until_candidate(world)
    serving = world.status["serving"]
    assert serving["selector"] == (
        f"lora-operator.dev/name=demo,lora-operator.dev/release={serving['release']}"
    )
    assert serving["replicas"] == 1


def test_a_crashed_verification_says_nothing_of_the_model() -> None:
    world = serving_world()
    world.edit(**NEXT)
    name = until_candidate(world)
    world.make_ready(name)
    world.rest()
    world.end_stage("verify", "OSError: disk full", exit_code=1)
    world.rest()
    assert not world.deployments[name].gave_up
    assert world.condition("Ready") == ("False", "StageCrashed")


def test_a_waiting_verification_is_tried_again() -> None:
    world = World()
    name = until_candidate(world)
    world.make_ready(name)
    world.rest()
    failure = StageFailure(failure=Reason.ENGINE_FAILED, message="no answer yet")
    world.end_stage("verify", failure, exit_code=3)
    world.rest()
    assert world.condition("Ready") == ("Unknown", "EngineFailed")
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_a_candidate_that_was_ready_once_has_met_its_deadline() -> None:
    world = World()
    name = until_candidate(world)
    world.make_ready(name)
    world.rest()
    failure = StageFailure(failure=Reason.ENGINE_FAILED, message="no answer yet")
    world.end_stage("verify", failure, exit_code=3)
    world.rest()
    ready = world.deployments[name]
    world.deployments[name] = replace(ready, ready_replicas=0, available=False)
    world.now += 86_400
    world.rest()
    assert not world.deployments[name].gave_up
    world.deployments[name] = ready
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_a_deleted_service_is_applied_again() -> None:
    world = serving_world()
    before = world.service
    world.service = None
    world.reconcile()
    assert world.service == before


def test_a_deleted_service_of_the_last_good_release_comes_back_while_the_next_is_judged() -> None:
    world = serving_world()
    before = world.service
    world.edit(**NEXT)
    world.run_until("quantize")
    world.service = None
    world.reconcile()
    assert world.service == before


def test_a_deleted_deployment_of_the_serving_release_is_applied_and_verified_again() -> None:
    world = serving_world()
    world.deployments.clear()
    world.reconcile()
    assert len(world.deployments) == 1
    assert world.condition("Available") == ("False", "WaitingForPods")
    assert world.condition("Ready")[0] == "Unknown"
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.created.count("verify") == 2


def test_ready_does_not_hold_while_pods_are_missing() -> None:
    world = serving_world(**{"serving.replicas": 2})
    (name,) = world.deployments
    world.serving_pods_start = False
    lose_a_pod(world, name)
    world.rest()
    assert world.condition("Ready") == ("Unknown", "WaitingForPods")
    assert "waiting for the pods of release" in world.message("Ready")
    assert "(1/2 are)" in world.message("Ready")
    assert world.condition("Available")[0] == "True"


@pytest.mark.fault("F38")
def test_a_strangers_service_is_not_touched() -> None:
    world = World()
    world.service = ObservedService("demo", "", ours=False)
    name = until_candidate(world)
    world.make_ready(name)
    world.serving_pods_start = True
    world.settle()
    assert world.selected == []
    assert world.condition("Stalled") == ("True", "NameConflict")
    assert world.condition("Ready")[0] == "False"


@pytest.mark.fault("F38")
def test_a_strangers_deployment_is_not_touched() -> None:
    world = World()
    name = until_candidate(world)
    theirs = replace(world.deployments[name], ours=False, uid="theirs")
    world.deployments[name] = theirs
    made = world.rest()
    assert not [a for a in made.actions if isinstance(a, ApplyDeployment | GiveUpRelease)]
    assert world.condition("Stalled") == ("True", "NameConflict")
    assert world.deployments[name] == theirs


@pytest.mark.fault("F27")
def test_a_candidate_that_is_superseded_before_it_serves_is_removed() -> None:
    world = serving_world()
    world.edit(**NEXT)
    intermediate = until_candidate(world)
    world.edit(**{"quantization.gptq": {"groupSize": 32}})
    last = None
    for _ in range(60):
        writes = world.writes
        world.reconcile()
        last = next((n for n in world.unready_deployments() if n != intermediate), last)
        if last and intermediate not in world.deployments:
            break
        if world.writes == writes:
            world.step_forward()
    assert intermediate not in world.deployments
    world.serving_pods_start = True
    world.settle()
    assert len(world.selected) == 2, "the intermediate release was never selected"


def test_no_replicas_means_nothing_to_verify_and_nothing_is_selected() -> None:
    world = World(changes={"serving.replicas": 0})
    world.serving_pods_start = False
    for _ in range(60):
        writes = world.writes
        world.reconcile()
        if world.writes == writes and not world.step_forward():
            break
    assert world.service is None
    assert "replicas is 0" in world.message("Ready")


def test_a_served_release_scaled_to_nothing_is_what_was_asked_for() -> None:
    world = serving_world()
    world.edit(**{"serving.replicas": 0})
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert world.condition("Available")[0] == "False"


def test_a_deployment_that_is_being_deleted_is_waited_for() -> None:
    world = serving_world()
    (name,) = world.deployments
    world.deployments[name] = replace(world.deployments[name], deleting=True)
    made = world.reconcile()
    assert not [a for a in made.actions if isinstance(a, ApplyDeployment | CreateJob)]
