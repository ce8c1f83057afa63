"""A real API server, once a session: etcd and kube-apiserver as plain processes, no root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl import Kubectl
from localcluster import tools
from localcluster.controlplane import ControlPlane

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and controller-manager with our CRD; there is no node."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), controller_manager=True) as plane:
        kubectl = Kubectl((str(tools.hyperkube()), "kubectl"), plane.kubeconfig)
        kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds/loradeployments.yaml"))
        kubectl("wait", "--for=condition=Established", "--timeout=30s",
                "crd/loradeployments.lora-operator.dev")  # fmt: skip
        yield plane


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """kubectl against the control plane."""
    return Kubectl((str(tools.hyperkube()), "kubectl"), control_plane.kubeconfig)
