"""Faults around the operator: what it must survive without a second run of anything."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api_server import install_crd
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from lora_api.digests import digest_of
from lora_api.jobcontract import Stage, StageCall
from lora_api.naming import job_name
from operator_stage import NAME, OperatorStage
from stand_in_kubelet import Ended

pytestmark = pytest.mark.integration
WORK = ["merge", "quantize", "evaluate", "benchmark"]


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    with OperatorStage(control_plane, kubectl, tmp_path) as running:
        yield running


def created_jobs(log: str) -> list[str]:
    return [line.split("created Job ")[1] for line in log.splitlines() if "created Job " in line]


@pytest.mark.fault("F14")
def test_two_operators_at_once_do_everything_once(
    stage: OperatorStage, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with stage.another_operator(control_plane, tmp_path / "second") as second:
        stage.apply()
        stage.wait_for("Ready", "True", seconds=120)
        assert "created Job" in stage.operator.log + second.log
    assert stage.stages.ran == WORK
    created = created_jobs(stage.operator.log) + created_jobs(second.log)
    assert len(created) == len(set(created)), "no name was created twice"
    assert "Traceback" not in stage.operator.log + second.log


@pytest.mark.fault("F10")
def test_an_api_server_that_restarts_is_waited_for(
    stage: OperatorStage, control_plane: ControlPlane
) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    control_plane.restart("kube-apiserver")
    stage.stages.held.clear()
    stage.wait_for("Ready", "True", seconds=120)
    assert stage.stages.ran == WORK
    assert "Traceback" not in stage.operator.log


@contextmanager
def somebody_who_writes_all_the_time(stage: OperatorStage) -> Iterator[list[int]]:
    """Annotates the object as fast as the API server answers; tells how often."""
    done, written = threading.Event(), [0]

    def write() -> None:
        for number in itertools.takewhile(lambda _: not done.is_set(), itertools.count(1)):
            stage.kubectl("annotate", "lora", NAME, f"example.com/n={number}", "--overwrite")
            written[0] = number

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        done.set()
        thread.join()


@pytest.mark.fault("F13")
def test_somebody_who_writes_the_object_all_the_time_holds_nothing_up(stage: OperatorStage) -> None:
    stage.stages.held.add("benchmark")
    stage.apply()
    with somebody_who_writes_all_the_time(stage) as written:
        stage.until("it was written often", lambda: written[0] > 20)
        stage.stages.held.clear()
        stage.wait_for("Ready", "True", seconds=120)
    assert stage.stages.ran == WORK
    assert len(created_jobs(stage.operator.log)) == len(set(created_jobs(stage.operator.log)))
    assert "Traceback" not in stage.operator.log


@pytest.mark.fault("F8")
def test_of_an_object_that_was_deleted_while_nobody_watched_nothing_is_left(
    stage: OperatorStage,
) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    stage.operator.kill()
    stage.kubectl("delete", "lora", NAME, "--wait=true")
    stage.operator.start()
    stage.until("its children are gone", lambda: not stage.children())
    stage.stays("nothing is made for it", lambda: not stage.children())
    assert "Traceback" not in stage.operator.log


@pytest.mark.fault("F43")
def test_a_namespace_that_is_deleted_while_a_stage_runs_goes_and_nothing_storms(
    stage: OperatorStage,
) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    said, namespace = len(stage.operator.log.splitlines()), stage.kubectl.namespace
    stage.kubectl("delete", "namespace", namespace, "--wait=false")
    stage.until("it is gone", lambda: not stage.kubectl.exists("namespace", namespace))
    lines = stage.operator.log.splitlines()[said:]
    assert len(lines) < 10, "\n".join(lines)
    assert "Traceback" not in stage.operator.log
    assert stage.operator.is_running


def but_for_status(document: dict[str, Any]) -> dict[str, Any]:
    """What its controller does not write."""
    metadata = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
    return {"metadata": metadata, "spec": document["spec"]}


@pytest.mark.fault("F44")
def test_a_crd_that_is_deleted_and_applied_again_costs_no_work(
    stage: OperatorStage, kubectl: Kubectl
) -> None:
    stage.apply()
    stage.wait_for("Ready", "True")
    kubectl("delete", "crd", "loradeployments.lora-operator.dev", "--wait=true")
    stage.until("its children are gone", lambda: not stage.children())
    install_crd(kubectl)
    stage.apply()

    def ready() -> bool:
        if not stage.operator.is_running:
            stage.operator.start()  # as its Deployment would
        return stage.condition("Ready").get("status") == "True"

    stage.until("it serves again", ready, seconds=120)
    assert stage.stages.ran == WORK, "all that was measured lies in the store"


@pytest.mark.fault("F20")
def test_a_job_of_our_name_that_is_not_ours_is_told_and_left_alone(stage: OperatorStage) -> None:
    stage.stages.held.add("resolve")
    stage.apply()
    stage.until("resolve runs", lambda: "resolve" in stage.stages.asked)
    uid = stage.object()["metadata"]["uid"]
    sources = {"base": "s3://models/base", "adapter0": "s3://models/adapter"}
    call = StageCall(
        stage=Stage.MERGE, parents={name: digest_of(uri) for name, uri in sources.items()}
    )
    name = job_name(NAME, uid, "merge", call.input_hash)
    stage.kubectl("create", "job", name, "--image=busybox")
    before = but_for_status(stage.kubectl.get("job", name))
    stage.stages.held.clear()
    stage.wait_for("Ready", "False", "NameConflict")
    assert name in stage.condition("Merged")["message"]
    live = but_for_status(stage.kubectl.get("job", name))
    assert live == before
    assert "ownerReferences" not in live["metadata"]


@pytest.mark.fault("F24")
def test_a_stage_that_runs_out_of_memory_is_told_and_not_tried_for_ever(
    stage: OperatorStage,
) -> None:
    stage.stages.crashing["merge"] = Ended(137, reason="OOMKilled")
    stage.apply()
    stage.wait_for("Ready", "False", "OutOfMemory")
    assert "raise resources.limits.memory" in stage.condition("Merged")["message"]
    stage.until("its Job is ended", lambda: not stage.has_unfinished_jobs())
    pods = set(stage.stages.pods["merge"])
    stage.stays("no pod is started again", lambda: stage.stages.pods["merge"] == pods)


def test_a_refused_input_ends_the_job_at_once_and_names_the_reason(stage: OperatorStage) -> None:
    refusal = '{"failure":"AdapterMismatch","message":"another base; name the right one"}'
    stage.stages.crashing["merge"] = Ended(2, refusal)
    stage.apply()
    stage.wait_for("Ready", "False", "AdapterMismatch")
    stage.until("its Job is ended", lambda: not stage.has_unfinished_jobs())
    assert len(stage.stages.pods["merge"]) == 1, "a refusal is not tried again"
    assert stage.condition("Stalled")["status"] == "True"
    stage.stages.crashing.clear()
    retry = "lora-operator.dev/retry-requested-at=now"
    stage.kubectl("annotate", "lora", NAME, retry)
    stage.wait_for("Ready", "True")
