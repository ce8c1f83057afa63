"""A real API server with our kind: etcd, kube-apiserver, controller-manager; no node, no root."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kubectl import Kubectl
from localcluster import tools
from localcluster.console import wait_until
from localcluster.controlplane import ControlPlane

_REPOSITORY = Path(__file__).parents[2]


@contextmanager
def api_server(folder: Path) -> Iterator[ControlPlane]:
    """Run it until the end of the block."""
    with ControlPlane(folder, controller_manager=True) as plane:
        install_crd(admin(plane))
        yield plane


def admin(plane: ControlPlane) -> Kubectl:
    """kubectl against it."""
    return Kubectl((str(tools.hyperkube()), "kubectl"), plane.kubeconfig)


def install_crd(kubectl: Kubectl, definition: dict[str, Any] | None = None) -> None:
    """Apply a CRD, ours if no other is given, and wait until it is served."""
    ours = (_REPOSITORY / "crds/loradeployments.yaml").read_text()
    document = definition or yaml.load(ours, yaml.CSafeLoader)
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(document))
    name = document["metadata"]["name"]
    # Not `kubectl wait`: it fails on a CRD that has no conditions yet.
    wait_until("the CRD", lambda: _is_established(kubectl, name), seconds=30)


def _is_established(kubectl: Kubectl, name: str) -> bool:
    crd = kubectl.get("crd", name)
    conditions = crd.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
