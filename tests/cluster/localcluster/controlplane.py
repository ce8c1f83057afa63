"""The control plane alone: a real API server for tests, as an ordinary user, in seconds.

    with ControlPlane(tmp_path) as plane:
        os.environ["KUBECONFIG"] = str(plane.kubeconfig)

Objects, CRDs, admission, RBAC, server-side apply and watches are real; there is no node, so no pod
ever runs. With `controller_manager=True` Jobs get their pods, owner references are collected,
and namespaces end. Traps: without it a deleted namespace stays Terminating for ever, and default
service accounts do not appear. Processes can be killed and started again by name (fault tests).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

from localcluster import components, pki, tools
from localcluster.console import ClusterError, wait_until
from localcluster.kubeapi import KubeApi
from localcluster.process import Process, free_ports

_TRIES = 3  # a port that was free can be taken by another process before we bind it


class ControlPlane:
    """etcd and kube-apiserver on random ports of 127.0.0.1; data and logs in `directory`."""

    def __init__(self, directory: Path, *, controller_manager: bool = False) -> None:
        self.directory = directory.resolve()
        self.kubeconfig = self.directory / "kubeconfig"
        self.processes: dict[str, Process] = {}
        self._with_manager = controller_manager
        self._api: KubeApi | None = None
        self.server = ""

    @property
    def api(self) -> KubeApi:
        if self._api is None:
            raise ClusterError("the control plane is not started: use `with ControlPlane(...)`")
        return self._api

    def start(self) -> None:
        for attempt in range(_TRIES):
            try:
                self._start()
                return
            except ClusterError as error:
                self.stop()
                if attempt + 1 == _TRIES or "address already in use" not in str(error):
                    raise

    def stop(self) -> None:
        """Ends all processes; the data stays in the directory until the next start."""
        for process in reversed(list(self.processes.values())):
            # What etcd holds is thrown away, and graceful ends of these servers take seconds.
            process.kill()
        self.processes.clear()
        self._api = None

    def restart(self, name: str) -> None:
        """Kills one process and starts it again, e.g. `kube-apiserver`; waits until it serves."""
        self.processes[name].kill()
        self.processes[name].start()
        self.processes["kube-apiserver"].wait_ready(self.api.ready)

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        certificates = pki.ensure()
        etcd_port, peer_port, port, manager_port = free_ports(4)
        self.server = f"https://127.0.0.1:{port}"
        shutil.rmtree(self.directory / "etcd", ignore_errors=True)
        self._run(components.etcd(self.directory / "etcd", etcd_port, peer_port))
        self._run(
            components.apiserver(
                certificates, etcd_port, port, bind="127.0.0.1", advertise="127.0.0.1"
            )
        )
        self._api = api = KubeApi(self.server, certificates)
        self.processes["kube-apiserver"].wait_ready(api.ready)
        # RBAC's own roles and the default namespace come a moment after /readyz.
        wait_until("namespace default", lambda: api.get("/api/v1/namespaces/default") is not None,
                   seconds=20)  # fmt: skip
        pki.kubeconfig(certificates, "admin", self.server, self.kubeconfig)
        if self._with_manager:
            self._start_manager(certificates, manager_port)

    def _start_manager(self, certificates: Path, port: int) -> None:
        name = "kube-controller-manager"
        own = pki.kubeconfig(certificates, name, self.server, self.directory / f"{name}.kubeconfig")
        self._run(components.controller_manager(certificates, own, port))
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.processes[name].wait_ready(lambda: self.api.get(account) is not None)

    def _run(self, command: list[str]) -> None:
        name = command[0]
        log = self.directory / "log" / f"{name}.log"
        process = Process(name, [tools.hyperkube(), *command], log)
        self.processes[name] = process
        process.start()
