"""Where things lie, and the addresses of the cluster.

All state is under one cache folder; nothing is written to the checkout:

    tools/NAME-HASH/   binaries built from Go modules, by the hash of what goes into them
    tools/debian-NAME/ a Debian package, unpacked
    bin/               links to the tools built last (kubectl, ctr, versitygw ...)
    go/HASH/           a Go toolchain, only where the machine has none
    pki/HASH/          certificates, kept so that a kubeconfig stays valid over down and up
    base/HASH/         the base image's packed root file system
    buildah/           buildah's store; containerd's snapshots are hard links into it
    images/            what was built: one JSON file for each image
    cluster/store/     containerd's store: survives `down`
    cluster/s3/        the S3 server's data: survives `down`, removed by `down --wipe`
    cluster/run/       the running cluster: configs, sockets, logs, etcd; removed at `down`

Trap: buildah/ and cluster/store/ must be on one file system, since hard links join them.
"""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE.parent / "modules"

# An own /30 between host and node: the kubelet refuses a loopback address.
NODE_NAME = "local-node"
NODE_IP = "10.245.0.1"
HOST_IP = "10.245.0.2"
LINK_PREFIX = 30
POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
API_PORT = 6443
S3_PORT = 7070
DNS_PORT = 1053
HOST_LINK = "lorahost"
NODE_LINK = "loranode"
CGROUP = "lora-cluster"


def cache() -> Path:
    """The project's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "lora-operator"


def tools() -> Path:
    return cache() / "tools"


def bin_links() -> Path:
    return cache() / "bin"


def buildah_root() -> Path:
    return cache() / "buildah"


def images() -> Path:
    return cache() / "images"


def cluster() -> Path:
    return cache() / "cluster"


def run() -> Path:
    return cluster() / "run"


def logs() -> Path:
    return run() / "log"


def conf() -> Path:
    return run() / "conf"


def store() -> Path:
    return cluster() / "store"


def s3() -> Path:
    return cluster() / "s3"


def host_kubeconfig() -> Path:
    """The kubeconfig for users. Outside run/, so that its path is stable."""
    return cluster() / "kubeconfig"


def containerd_socket() -> Path:
    return run() / "containerd.sock"


def supervisor_state() -> Path:
    return run() / "supervisor.json"


def init_record() -> Path:
    """Which process is the first of the cluster's namespaces, as the host sees it.

    In /run: addresses and link names exist once on a machine, whichever cache a cluster lives in.
    """
    return Path("/run/lora-operator-cluster.json")
