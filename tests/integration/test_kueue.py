"""A queue holds a stage's Job back, on a real API server that knows Kueue's Workloads.

The test plays Kueue: it suspends and resumes the Job and says why. Jobs, pods and rights are real.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_server import install_crd
from chart import chart_rules
from kubectl import Kubectl
from kueue import API_VERSION, condition, workload_definition, workload_of
from localcluster.controlplane import ControlPlane
from operator_process import grant
from operator_stage import OperatorStage

pytestmark = pytest.mark.integration
QUEUE = "team-queue"
LABELS = {"jobs.defaults.labels": {"kueue.x-k8s.io/queue-name": QUEUE}}


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    install_crd(kubectl, workload_definition())
    running = OperatorStage(control_plane, kubectl, tmp_path, KUEUE_API_VERSION=API_VERSION)
    grant(running.kubectl, chart_rules({"kueue": {"enabled": True}}))
    with running:
        yield running


def suspend(stage: OperatorStage, job: str, suspended: bool) -> None:
    change = json.dumps({"spec": {"suspend": suspended}})
    stage.kubectl("patch", "job", job, "--type=merge", "-p", change)


def say(stage: OperatorStage, workload: str, *conditions: dict[str, str]) -> None:
    change = json.dumps({"status": {"conditions": conditions}})
    stage.kubectl(
        "patch", "workloads.kueue.x-k8s.io", workload, "--type=merge", "--subresource=status",
        "-p", change,
    )  # fmt: skip


def message(stage: OperatorStage) -> str:
    return str(stage.condition("Ready")["message"])


@pytest.mark.fault("F21", "F22")
def test_a_job_that_is_queued_and_evicted_waits_with_kueue_s_reason_and_then_goes_on(
    stage: OperatorStage,
) -> None:
    stage.stages.held.add("quantize")
    stage.apply(**LABELS)
    stage.until("quantize has a pod", lambda: "quantize" in stage.stages.asked)
    job = stage.job_of("quantize")
    found: dict[str, Any] = stage.kubectl.get("job", job)
    workload = workload_of(found, QUEUE)
    suspend(stage, job, True)
    stage.wait_for("Ready", "Unknown", "Queued")
    assert "kubectl get workloads" in message(stage)

    stage.kubectl.apply(workload)
    name = workload["metadata"]["name"]
    missing = f"LocalQueue {QUEUE} doesn't exist"
    say(stage, name, condition("QuotaReserved", "False", "Inadmissible", missing))
    stage.until("the queue is named", lambda: missing in message(stage))

    evicted = condition("Evicted", "True", "Preempted", "Preempted to accommodate another")
    say(stage, name, evicted, condition("QuotaReserved", "False", "Pending", "no quota left"))
    stage.until("the eviction is told", lambda: "evicted (Preempted)" in message(stage))
    assert stage.object()["status"]["phase"] == "Waiting"

    say(stage, name, condition("QuotaReserved", "True", "QuotaReserved", "reserved"))
    stage.stages.held.clear()
    suspend(stage, job, False)
    stage.wait_for("Ready", "True")
    assert stage.stages.ran.count("quantize") == 1
    assert "Traceback" not in stage.operator.log


def test_without_kueue_a_queue_holds_nothing_up_and_a_held_back_job_still_names_its_queue(
    control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
) -> None:
    nowhere = "kueue.x-k8s.io/v1alpha9"
    stage = OperatorStage(control_plane, kubectl, tmp_path, KUEUE_API_VERSION=nowhere)
    grant(stage.kubectl, chart_rules({"kueue": {"enabled": True}}))
    with stage:
        stage.stages.held.add("quantize")
        stage.apply(**LABELS)
        stage.until("quantize has a pod", lambda: "quantize" in stage.stages.asked)
        suspend(stage, stage.job_of("quantize"), True)
        stage.wait_for("Ready", "Unknown", "Queued")
        assert f"waits in queue {QUEUE}" in message(stage)
        stage.stages.held.clear()
        suspend(stage, stage.job_of("quantize"), False)
        stage.wait_for("Ready", "True")
        assert "Traceback" not in stage.operator.log
