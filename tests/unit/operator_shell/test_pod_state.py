"""What of a pod's status tells why it does not go on."""

from typing import Any

from lora_operator.podstate import observed_pod

STARTED, LATER = "2026-11-22T10:00:00Z", "2026-11-22T10:05:00Z"


def pod(**status: Any) -> Any:
    return observed_pod({"metadata": {"name": "p", "uid": "u"}, "status": status})


def container(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": {}, **fields}


def test_a_pod_that_no_node_can_take_says_what_the_scheduler_says() -> None:
    condition = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }  # fmt: skip
    assert "Insufficient nvidia.com/gpu" in pod(conditions=[condition]).unschedulable


def test_the_container_that_holds_the_pod_up_is_the_first_that_has_not_succeeded() -> None:
    fetch = container(
        "fetch", state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    )
    engine = container("engine", state={"waiting": {"reason": "PodInitializing"}})
    seen = pod(initContainerStatuses=[fetch], containerStatuses=[engine])
    assert (seen.waiting_reason, seen.waiting_message) == ("ImagePullBackOff", "no such image")
    done = container("fetch", state={"terminated": {"exitCode": 0, "message": "fetched"}})
    seen = pod(initContainerStatuses=[done], containerStatuses=[engine])
    assert (seen.waiting_reason, seen.termination_message) == ("PodInitializing", "")


def test_a_fetch_that_fails_again_and_again_says_why() -> None:
    fetch = container(
        "fetch",
        state={"waiting": {"reason": "CrashLoopBackOff"}},
        lastState={"terminated": {"exitCode": 3, "message": '{"failure":"AccessDenied"}'}},
        restartCount=4,
    )
    engine = container("engine", state={"waiting": {"reason": "PodInitializing"}})
    seen = pod(initContainerStatuses=[fetch], containerStatuses=[engine])
    assert seen.waiting_reason == "CrashLoopBackOff"
    assert seen.termination_message == '{"failure":"AccessDenied"}'
    assert (seen.exit_code, seen.restarts) == (None, 4)


def test_the_end_of_a_stage_is_read_from_its_container() -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": "", "startedAt": STARTED}
    seen = pod(
        phase="Failed",
        containerStatuses=[container("mesh"), container("stage", state={"terminated": ended})],
    )
    assert (seen.exit_code, seen.terminated_reason) == (137, "OOMKilled")
    assert seen.container_started_at == 1795341600.0


def test_a_restarted_engine_keeps_its_first_known_start_and_is_not_taken_for_ended() -> None:
    engine = container(
        "engine",
        state={"running": {"startedAt": LATER}},
        lastState={"terminated": {"exitCode": 1, "reason": "Error", "startedAt": STARTED}},
    )
    seen = pod(containerStatuses=[engine], conditions=[{"type": "Ready", "status": "True"}])
    assert seen.container_started_at == 1795341600.0
    assert (seen.exit_code, seen.terminated_reason, seen.ready) == (None, "Error", True)


def test_a_pod_that_has_just_been_created_says_nothing() -> None:
    seen = observed_pod({"metadata": {"name": "p", "uid": "u"}})
    assert (seen.ready, seen.exit_code, seen.waiting_reason, seen.ip) == (False, None, "", "")
