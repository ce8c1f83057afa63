"""Faults around the operator: what it must survive without a second run of anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.fault("F14")
def test_two_operators_at_once_do_everything_once(
    stage: OperatorStage, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with stage.another_operator(control_plane, tmp_path / "second") as second:
        stage.apply()
        stage.wait_for("Ready", "True", seconds=120)
        assert "created Job" in stage.operator.log + second.log
    assert stage.stages.ran == WORK
    created = [
        line.split("created Job ")[1]
        for log in (stage.operator.log, second.log)
        for line in log.splitlines()
        if "created Job " in line
    ]
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
    version = stage.kubectl.get("job", name)["metadata"]["resourceVersion"]
    stage.stages.held.clear()
    stage.wait_for("Ready", "False", "NameConflict")
    assert name in stage.condition("Merged")["message"]
    live = stage.kubectl.get("job", name)["metadata"]
    assert (live["resourceVersion"], "ownerReferences" in live) == (version, False)


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
