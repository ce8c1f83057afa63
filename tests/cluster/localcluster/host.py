"""What the machine must offer: Linux, root, a few Debian packages, cgroups and a link to the node.

Everything here is undone by `remove_leftovers`; a killed run leaves at most a veth pair, empty
cgroups and files under run/, and the next start removes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from localcluster import paths
from localcluster.console import ClusterError, step, wait_until
from localcluster.shell import SYSTEM_PATH, run, succeeds, which

# program -> Debian package
_PROGRAMS = {
    "iptables": "iptables",  # the CNI bridge's masquerade and portmap rules
    "nft": "nftables",  # kube-proxy
    "conntrack": "conntrack",  # kube-proxy removes stale UDP entries with it
    "runc": "runc",
    "socat": "socat",
    "ip": "iproute2",
    "openssl": "openssl",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_IMAGE_PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap"}

ALTERNATIVES = (
    "Instead: CLUSTER=current uses the cluster of your current kubectl context, and "
    "`lora-jobs run FILE.yaml` runs all stages without any cluster."
)
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Init:
    """The first process of the cluster's namespaces. A pid alone can be another process by now."""

    pid: int
    started: str
    cache: str

    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def save(self) -> None:
        paths.init_record().write_text(json.dumps(asdict(self)))

    @staticmethod
    def load() -> Init | None:
        try:
            return Init(**json.loads(paths.init_record().read_text()))
        except (OSError, ValueError, TypeError):
            return None


def require_node_host() -> None:
    """A node needs Linux and root; says what to use where there is none."""
    if platform.system() != "Linux":
        raise ClusterError(f"The local cluster needs Linux. {ALTERNATIVES}")
    if os.geteuid() != 0:
        raise ClusterError(
            "The local cluster needs root: it makes namespaces, cgroups and a veth pair. "
            f"Run it with sudo. {ALTERNATIVES}"
        )


def ensure_packages(*, images: bool) -> None:
    """Installs the Debian packages whose programs are missing."""
    wanted = {**_PROGRAMS, **(_IMAGE_PROGRAMS if images else {})}
    missing = sorted({package for program, package in wanted.items() if which(program) is None})
    if not missing:
        return
    if which("apt-get") is None:
        raise ClusterError(
            f"missing programs: {' '.join(p for p in wanted if which(p) is None)}. Install them "
            f"with this system's package manager (Debian names: {' '.join(missing)}). "
            f"{ALTERNATIVES}"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": _path()}
    with step(f"installing Debian packages: {' '.join(missing)}"):
        run("apt-get", "update", "-q", env=environment)
        run("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing, env=environment)


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty if there is no such process, or only its zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if after_name[0] in "ZX" else after_name[19]


def end(init: Init, grace: float) -> None:
    """Ends the namespaces: SIGTERM lets servers close their databases, SIGKILL ends the rest."""
    for how, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + seconds
        if init.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(init.pid, how)
        while init.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
    if init.alive():
        raise ClusterError(f"process {init.pid} does not end; see `ps -o stat,wchan -p {init.pid}`")


def connect(init: Init) -> None:
    """A veth pair between host and node, and routes to pods and services over it."""
    host, node = paths.HOST_LINK, paths.NODE_LINK
    prefix = paths.LINK_PREFIX
    inside = ("nsenter", "-t", str(init.pid), "-n", "ip")
    run("ip", "link", "add", host, "type", "veth", "peer", "name", node, "netns", str(init.pid))
    run("ip", "addr", "add", f"{paths.HOST_IP}/{prefix}", "dev", host)
    run("ip", "link", "set", host, "up")
    run(*inside, "addr", "add", f"{paths.NODE_IP}/{prefix}", "dev", node)
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "set", node, "up")
    run(*inside, "route", "add", "default", "via", paths.HOST_IP)
    for network in (paths.POD_CIDR, paths.SERVICE_CIDR):
        run("ip", "route", "replace", network, "via", paths.NODE_IP,
            hint=f"Another network of this machine may use {network}: see `ip route`.")  # fmt: skip


def remove_leftovers() -> None:
    """What a killed run leaves behind. Only call when no cluster is running."""
    paths.init_record().unlink(missing_ok=True)
    if succeeds("ip", "link", "show", paths.HOST_LINK):
        run("ip", "link", "del", paths.HOST_LINK)
    remove_cgroups()
    if paths.run().exists():
        # Pods can leave files that are still being closed by the kernel.
        wait_until(f"removing {paths.run()}", _run_folder_gone, seconds=10)


def _run_folder_gone() -> bool:
    shutil.rmtree(paths.run(), ignore_errors=True)
    return not paths.run().exists()


def make_cgroups() -> None:
    """The kubelet's own root, so that it never meets another kubelet's cgroups."""
    for folder in _cgroup_roots():
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # cgroup v1: empty until copied
            file = folder / setting
            if folder.parent != _CGROUPS and file.exists() and not file.read_text().strip():
                file.write_text((folder.parent / setting).read_text())


def remove_cgroups() -> None:
    for folder in _cgroup_roots():
        if folder.exists():
            wait_until(f"removing the cgroup {folder}", partial(_removed, folder), seconds=10,
                       hint="A process of an earlier cluster still lives in it.")  # fmt: skip


def _cgroup_roots() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / paths.CGROUP]
    return [
        c / paths.CGROUP for c in sorted(_CGROUPS.iterdir()) if c.is_dir() and not c.is_symlink()
    ]


def _removed(folder: Path) -> bool:
    for parent, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(parent)
    return not folder.exists()


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
