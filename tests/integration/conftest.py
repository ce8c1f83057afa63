"""A real API server, once a session: etcd and kube-apiserver as plain processes, no root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl import Kubectl
from localcluster import tools
from localcluster.console import wait_until
from localcluster.controlplane import ControlPlane

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and controller-manager with our CRD; there is no node."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), controller_manager=True) as plane:
        kubectl = Kubectl((str(tools.hyperkube()), "kubectl"), plane.kubeconfig)
        kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds/loradeployments.yaml"))
        # Not `kubectl wait`: it fails on a CRD that has no conditions yet.
        wait_until("the CRD", lambda: _is_established(kubectl), seconds=30)
        yield plane


def _is_established(kubectl: Kubectl) -> bool:
    crd = kubectl.get("crd", "loradeployments.lora-operator.dev")
    conditions = crd.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """kubectl against the control plane."""
    return Kubectl((str(tools.hyperkube()), "kubectl"), control_plane.kubeconfig)
