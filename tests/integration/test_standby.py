"""Of several operators one leads by a Lease, and a standby takes over. With a real API server."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chart import RELEASE, lease_rules
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from operator_process import OperatorProcess
from operator_stage import OperatorStage

pytestmark = pytest.mark.integration
WORK = ["merge", "quantize", "evaluate", "benchmark"]


class Replicas:
    """Two operators for one namespace that share a Lease there."""

    def __init__(self, plane: ControlPlane, kubectl: Kubectl, folder: Path) -> None:
        self.stage = OperatorStage(plane, kubectl, folder)
        self.first, self.second = (
            OperatorProcess(
                self.stage.kubectl, plane.server, folder / name,
                {"LEASE": f"{self.stage.kubectl.namespace}/{RELEASE}", "LEASE_SECONDS": "3"},
                lease_rules(),
            )
            for name in ("first", "second")
        )  # fmt: skip
        self.stage.operator = self.first

    def lease(self) -> dict[str, Any]:
        """Its spec; empty while there is none."""
        leases = self.stage.kubectl.items("leases")
        return leases[0]["spec"] if leases else {}

    def transitions(self) -> int:
        """How often it changed hands."""
        return int(self.lease().get("leaseTransitions", 0))


@pytest.fixture
def replicas(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[Replicas]:
    both = Replicas(control_plane, kubectl, tmp_path)
    with both.stage, both.second:
        yield both


@contextmanager
def stopped(operator: OperatorProcess) -> Iterator[None]:
    """It is not run by the machine meanwhile, as by a hypervisor that holds it."""
    operator.send(signal.SIGSTOP)
    try:
        yield
    finally:
        operator.send(signal.SIGCONT)


@pytest.mark.fault("F15")
def test_a_leader_that_was_stopped_and_goes_on_writes_nothing_any_more(replicas: Replicas) -> None:
    stage = replicas.stage
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    assert "standing by" in replicas.second.log
    assert "created Job" not in replicas.second.log, "it only stands by"
    with stopped(replicas.first):
        stage.until("the second leads", lambda: replicas.transitions() == 1)
        said = len(replicas.first.log)
        stage.stages.held.clear()
        stage.wait_for("Ready", "True", seconds=120)
    stage.until("the first has ended", lambda: not replicas.first.is_running)
    assert "could not be renewed in time" in replicas.first.log[said:]
    assert "created" not in replicas.first.log[said:]
    assert stage.stages.ran == WORK
    assert "Traceback" not in replicas.first.log + replicas.second.log


@pytest.mark.fault("F16")
def test_a_lease_that_somebody_deletes_costs_no_work_and_leaves_one_leader(
    replicas: Replicas,
) -> None:
    stage = replicas.stage
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    stage.kubectl("delete", "lease", RELEASE)
    stage.until("there is a Lease", lambda: bool(replicas.lease()))
    stage.stages.held.clear()
    stage.wait_for("Ready", "True", seconds=120)
    assert stage.stages.ran == WORK
    assert replicas.first.is_running != ("this process leads no more" in replicas.first.log)


def test_a_leader_that_ends_gives_the_lease_back_and_the_standby_goes_on(
    replicas: Replicas,
) -> None:
    stage = replicas.stage
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    replicas.first.send(signal.SIGTERM)
    stage.until("the first has ended", lambda: not replicas.first.is_running)
    stage.until("the second leads", lambda: "leads" in replicas.second.log)
    stage.stages.held.clear()
    stage.wait_for("Ready", "True", seconds=120)
    assert stage.stages.ran == WORK
    assert "Traceback" not in replicas.first.log + replicas.second.log
