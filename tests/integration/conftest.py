"""A real API server, once a session: etcd and kube-apiserver as plain processes, no root."""

from collections.abc import Iterator

import pytest

from api_server import admin, api_server
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and controller-manager with our CRD; there is no node."""
    with api_server(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """kubectl against the control plane."""
    return admin(control_plane)
