"""The operator as a process of its own, with exactly the rights that the chart grants it."""

import base64
import http.client
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chart import chart_rules
from kubectl import Kubectl
from localcluster import pki
from localcluster.process import Process, free_ports

ACCOUNT = "lora-operator"
IMAGES = {
    "JOBS_IMAGE": "lora-operator/jobs:test",
    "QUANTIZE_IMAGE": "lora-operator/quantize:test",
    "SERVING_IMAGE_VLLM": "lora-operator/vllm:test",
    "SERVING_IMAGE_TRANSFORMERS": "lora-operator/transformers:test",
}
QUICK = {
    "RESYNC_SECONDS": "2", "BACKOFF_MIN_SECONDS": "1", "BACKOFF_MAX_SECONDS": "4",
    "PROGRESS_SECONDS": "1",
}  # fmt: skip


def grant(kubectl: Kubectl, rules: list[dict[str, Any]]) -> None:
    """Give the operator's account these rights in the namespace, and no others."""
    namespace = kubectl.namespace
    metadata = {"name": ACCOUNT, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": metadata, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": metadata, "roleRef": role,
         "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]},
    )  # fmt: skip


def kubeconfig_of(kubectl: Kubectl, server: str, path: Path, account: str = ACCOUNT) -> Path:
    """Write a kubeconfig that has a service account's rights; the account is of the namespace."""
    token = kubectl("create", "token", account, "--duration=1h").strip()
    authority = base64.b64encode((pki.ensure() / "ca.crt").read_bytes()).decode()
    cluster = {"server": server, "certificate-authority-data": authority}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "operator"}}],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path


class OperatorEndpoints:
    """`python -m lora_operator` with its endpoints on free ports.

    Args:
        kubeconfig: Whose rights it has.
        log: Where it logs to.
        settings: Variables, without `LORA_OPERATOR_`.
        patience_seconds: How long an endpoint may take to answer.

    Attributes:
        metrics_port: Where it answers scrapes.
    """

    def __init__(
        self, kubeconfig: Path, log: Path, settings: Mapping[str, str], patience_seconds: float = 2
    ) -> None:
        self._health_port, self.metrics_port = free_ports(2)
        self._patience_seconds = patience_seconds
        self.process = Process(
            "operator",
            [sys.executable, "-m", "lora_operator",
             "--health", f"http://127.0.0.1:{self._health_port}/healthz",
             "--metrics", f"http://127.0.0.1:{self.metrics_port}/metrics"],
            log,
            env={f"LORA_OPERATOR_{k}": v for k, v in settings.items()}
            | {"KUBECONFIG": str(kubeconfig), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers liveness probes."""
        self.process.start()
        self.process.wait_ready(self._is_alive)

    def scrape(self) -> str:
        """Its metrics, as Prometheus reads them."""
        return self._ask(self.metrics_port, "/metrics")[1]

    def _is_alive(self) -> bool:
        try:
            return self._ask(self._health_port, "/healthz")[0] == 200
        except OSError:
            return False

    def _ask(self, port: int, path: str) -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=self._patience_seconds)
        try:
            link.request("GET", path)
            answer = link.getresponse()
            return answer.status, answer.read().decode()
        finally:
            link.close()


@dataclass
class OperatorProcess:
    """The operator for one namespace; it can be killed and started again."""

    kubectl: Kubectl
    server: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    more_rules: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        grant(self.kubectl, [*chart_rules(), *self.more_rules])
        settings = IMAGES | QUICK | {"NAMESPACES": self.kubectl.namespace} | self.settings
        self._operator = OperatorEndpoints(
            kubeconfig_of(self.kubectl, self.server, self.folder / "operator.kubeconfig"),
            self.folder / "operator.log",
            settings,
        )

    def __enter__(self) -> "OperatorProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._operator.process.stop(grace=20)

    def start(self) -> None:
        """Start it and wait until it answers liveness probes."""
        self._operator.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._operator.process.kill()

    def send(self, signal: int) -> None:
        """A signal, e.g. SIGSTOP."""
        os.kill(self._operator.process.pid, signal)

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._operator.process.is_running

    @property
    def log(self) -> str:
        """All that it has said."""
        log = self._operator.process.log
        return log.read_text() if log.exists() else ""

    @property
    def metrics_port(self) -> int:
        """Where it answers scrapes."""
        return self._operator.metrics_port

    def scrape(self) -> str:
        """Its metrics, as Prometheus reads them."""
        return self._operator.scrape()
