"""Puts images into the running cluster's containerd.

`link` is the fast way: layers that buildah unpacked are hard-linked into containerd's snapshots,
so that 5 GB take seconds and no second copy on disk. No layer is ever packed: containerd needs the
blob of a layer only to unpack it, and here its snapshot is already there.
Traps: linked files share inodes, so never edit a file in buildah's store or in a snapshot in place;
both must be on one file system; and `docker save`-like exports of linked images do not work.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localcluster import node, paths, tools
from localcluster.buildah import Layer
from localcluster.console import ClusterError
from localcluster.shell import run, succeeds

_TYPE = "application/vnd.oci.image"
_OVERLAY = ("--snapshotter", "overlayfs")
_ROOT_LABEL = "containerd.io/gc.root"


def ctr(*words: str | Path, stdin: bytes | None = None) -> str:
    """Runs containerd's client in the cluster's mount namespace."""
    return run(*_argv(), *words, stdin=stdin)


def references() -> list[str]:
    """Names of all images, as containerd has them (docker.io/local/...)."""
    return ctr("images", "ls", "-q").split()


def remove(reference: str) -> None:
    """Removes an image; its snapshots go when no other image has them."""
    known = dict(_names_and_digests())
    digest = known.get(_full(reference))
    if digest is not None:
        # The kubelet's interface adds a second name (sha256:...), which would keep the files.
        ctr("images", "rm", "--sync", *(name for name, other in known.items() if other == digest))


def _names_and_digests() -> list[tuple[str, str]]:
    rows = [line.split() for line in ctr("images", "ls").splitlines()[1:]]
    return [(row[0], row[2]) for row in rows]


def load_archive(archive: Path) -> list[str]:
    """Imports a docker or OCI archive; returns the new images' names."""
    if not archive.is_file():
        raise ClusterError(f"{archive} is not a file")
    before = set(references())
    ctr("images", "import", "--local", *_OVERLAY, archive.resolve())
    return sorted(set(references()) - before) or [f"nothing new in {archive}"]


def link(reference: str, config: dict[str, Any], layers: Sequence[Layer]) -> None:
    """Makes an image from unpacked layers, lowest first."""
    parent, made = "", []
    for layer in layers:
        chain = layer.diff_id if not parent else _digest(f"{parent} {layer.diff_id}".encode())
        if not succeeds(*_argv(), "snapshots", *_OVERLAY, "info", chain):
            _link_layer(chain, parent, layer.folder)
            made.append(chain)
        parent = chain
    ctr("images", "import", "--local", *_OVERLAY, "-", stdin=_index(_full(reference), config))
    for chain in made:
        # From here on the image holds its snapshots; without this they would outlive it.
        ctr("snapshots", *_OVERLAY, "label", chain, f"{_ROOT_LABEL}=")


def _link_layer(chain: str, parent: str, source: Path) -> None:
    key = f"link-{uuid.uuid4().hex}"
    ctr("snapshots", *_OVERLAY, "prepare", key, *([parent] if parent else []))
    try:
        folder = _upper(ctr("snapshots", *_OVERLAY, "mounts", "/unused", key))
        run("cp", "-al", f"{source}/.", f"{folder}/",
            hint="buildah's store and the cluster's must be on one file system.")  # fmt: skip
        shutil.copystat(source, folder)
        owner = source.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        ctr("snapshots", *_OVERLAY, "commit", chain, key)
    except BaseException:
        succeeds(*_argv(), "snapshots", *_OVERLAY, "rm", key)
        raise


def _upper(mounts: str) -> Path:
    """The folder to fill: the overlay's upper one, or the bind source of a lowest layer."""
    if "upperdir=" in mounts:
        return Path(mounts.split("upperdir=")[1].split(",")[0].split()[0])
    for word in mounts.split():
        if word.endswith("/fs"):
            return Path(word)
    raise ClusterError(f"containerd answered no snapshot folder: {mounts}")


def _index(reference: str, config: dict[str, Any]) -> bytes:
    """An OCI archive with config and manifest only."""
    body = json.dumps(config).encode()
    layers = [
        {"mediaType": f"{_TYPE}.layer.v1.tar", "digest": diff_id, "size": 1024}
        for diff_id in config["rootfs"]["diff_ids"]
    ]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": {
                "mediaType": f"{_TYPE}.config.v1+json",
                "digest": _digest(body),
                "size": len(body),
            },
            "layers": layers,
        }
    ).encode()
    entry = {
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "digest": _digest(manifest),
        "size": len(manifest),
        "platform": {"architecture": config["architecture"], "os": config["os"]},
        "annotations": {"io.containerd.image.name": reference},
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        f"blobs/sha256/{_digest(body)[7:]}": body,
        f"blobs/sha256/{_digest(manifest)[7:]}": manifest,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _argv() -> list[str]:
    init = node.running()
    if init is None:
        raise ClusterError("the cluster is not running: `localcluster up` starts it")
    client = tools.NODE.folder() / "ctr"
    return ["nsenter", "-t", str(init.pid), "-m", str(client),
            "-a", str(paths.containerd_socket()), "-n", "k8s.io"]  # fmt: skip


def _full(reference: str) -> str:
    return reference if reference.startswith("docker.io/") else f"docker.io/{reference}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
