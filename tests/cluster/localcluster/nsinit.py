"""The first process of the cluster's own mount, network and PID namespaces.

It starts the services in order, starts a dead one again (as systemd would), and reaps what the
containers leave. When it ends, the kernel ends everything in the namespaces: nothing outlives it.
It waits for one line on its standard input: the host first has to connect the network.

Trap: as PID 1 it gets only the signals that it handles. SIGTERM closes the two servers with
databases that survive `down` (containerd, S3), then exits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from localcluster import paths
from localcluster.console import ClusterError, say, wait_until
from localcluster.kubeapi import KubeApi
from localcluster.shell import run, succeeds

_RESTART_DELAY = 1.0
_KEEP_DATA = ("versitygw", "containerd")


class Supervisor:
    """Starts services by name from the plan; knows the pids only inside the namespace."""

    def __init__(self, services: dict[str, dict[str, Any]]) -> None:
        self._services = services
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def start(self, name: str) -> None:
        service = self._services[name]
        with (paths.logs() / f"{name}.log").open("ab") as out:
            self._running[name] = subprocess.Popen(
                service["argv"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **service.get("env", {})},
                start_new_session=True,
            )
        say(f"started {name}")
        self._save()

    def stop(self, name: str, grace: float = 5) -> None:
        child = self._running.pop(name, None)
        if child is None:
            return
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def tend(self) -> None:
        """Reaps children, and starts dead services again after a moment."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._ended(pid, os.waitstatus_to_exitcode(status))
        now = time.monotonic()
        for name in [name for name, when in self._due.items() if when <= now]:
            del self._due[name]
            self._restarts[name] = self._restarts.get(name, 0) + 1
            self.start(name)

    def _ended(self, pid: int, code: int) -> None:
        for name, child in list(self._running.items()):
            if child.pid == pid:
                child.returncode = code  # else Popen would wait for a child that is gone
                say(f"{name} ended with {code}; starting it again")
                del self._running[name]
                self._due[name] = time.monotonic() + _RESTART_DELAY
                self._save()

    def _save(self) -> None:
        state = {
            name: {"pid": child.pid, "restarts": self._restarts.get(name, 0)}
            for name, child in self._running.items()
        }
        draft = paths.supervisor_state().with_suffix(".draft")
        draft.write_text(json.dumps(state))
        draft.replace(paths.supervisor_state())


def main() -> None:
    """Everything in order; an exception ends the namespaces, and `up` shows this log."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    if not sys.stdin.readline():
        raise SystemExit("the host went away before it had connected the network")
    _prepare_mounts()
    supervisor = Supervisor(plan["services"])
    for name in ("etcd", "kube-apiserver", "containerd", "versitygw"):
        supervisor.start(name)
    _handle_termination(supervisor)
    _prepare_containerd(supervisor, plan["archives"])
    _wait_for_api(supervisor, Path(plan["pki"]))
    for name in plan["services"]:
        if name not in ("etcd", "kube-apiserver", "containerd", "versitygw"):
            supervisor.start(name)
    while True:
        supervisor.tend()
        time.sleep(0.2)


def _prepare_mounts() -> None:
    run("mount", "--make-rshared", "/")  # the kubelet's mounts must reach containers
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in ("/run/netns", "/run/containerd", "/run/lock"):
        Path(folder).mkdir(parents=True)
    for setting in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        file = Path("/proc/sys") / setting
        if file.exists():
            file.write_text("1")


def _prepare_containerd(supervisor: Supervisor, archives: list[str]) -> None:
    """Removes containers of an earlier cluster, whose store this is, and imports small images."""
    ctr = (os.environ["CTR"], "-a", str(paths.containerd_socket()), "-n", "k8s.io")

    def serving() -> bool:
        return succeeds(*ctr, "version")

    wait_until("containerd", serving, seconds=60, hint=f"See {paths.logs()}/containerd.log")
    old = run(*ctr, "containers", "ls", "-q").split()
    if old:
        say(f"removing {len(old)} containers of an earlier cluster")
        run(*ctr, "containers", "rm", *old)
        # Its CRI plugin has already read them: only a fresh start forgets them.
        supervisor.stop("containerd")
        supervisor.start("containerd")
        wait_until("containerd", serving, seconds=60, hint=f"See {paths.logs()}/containerd.log")
    have = run(*ctr, "images", "ls", "-q").split()
    for archive in archives:
        reference = json.loads(Path(archive).with_suffix(".json").read_text())["reference"]
        if f"docker.io/{reference}" not in have:
            run(*ctr, "images", "import", "--local", "--snapshotter", "overlayfs", archive)


def _wait_for_api(supervisor: Supervisor, certificates: Path) -> None:
    api = KubeApi(f"https://127.0.0.1:{paths.API_PORT}", certificates)
    deadline = time.monotonic() + 120
    while not api.ready():
        supervisor.tend()
        if time.monotonic() > deadline:
            raise ClusterError(f"kube-apiserver never became ready; see {paths.logs()}")
        time.sleep(0.05)


def _handle_termination(supervisor: Supervisor) -> None:
    def leave(_signal: int, _frame: FrameType | None) -> None:
        for name in _KEEP_DATA:
            supervisor.stop(name)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)


if __name__ == "__main__":
    main()
