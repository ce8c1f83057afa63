"""Calls of buildah on the project's own store, and what that store says about an image.

buildah mounts overlays while it builds; each call has a mount namespace of its own, so that a
killed build leaves no mount on the host.
Trap: the layers' folders are read straight from containers-storage's files (overlay-images,
overlay-layers, overlay/ID/diff), which is not a promised interface: `layers` checks what it finds.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import paths
from localcluster.console import ClusterError
from localcluster.shell import logged, run, succeeds

_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


@dataclass(frozen=True)
class Layer:
    """One unpacked layer: its folder, and the digest of its tar (the OCI diff id)."""

    diff_id: str
    folder: Path


def argv(*words: str | Path) -> list[str | Path]:
    """A buildah command line on our store."""
    store = paths.buildah_root()
    return ["unshare", "--mount", "--propagation", "private", "buildah", "--root", store / "root",
            "--runroot", store / "run", "--storage-driver", "overlay", *words]  # fmt: skip


def policy() -> Path:
    """Signatures are not checked: everything here was built on this machine."""
    file = paths.buildah_root() / "policy.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_POLICY)
    return file


def exists(reference: str) -> bool:
    return succeeds(*argv("inspect", "--type", "image", reference), timeout=60)


def pull(archive: Path, reference: str, log: Path) -> None:
    logged(argv("pull", "-q", "--signature-policy", policy(), f"docker-archive:{archive}"), log)
    if not exists(reference):
        raise ClusterError(f"buildah did not keep {reference}; see {log}")


def remove(reference: str) -> None:
    if exists(reference):
        run(*argv("rmi", "--force", reference))


def recover() -> None:
    """Forgets what a killed build left: mount counts of a namespace that is gone, and containers.

    Only call while holding the lock of all builds.
    """
    shutil.rmtree(paths.buildah_root() / "run", ignore_errors=True)
    run(*argv("rm", "--all"))


def prune() -> None:
    """Removes unnamed images: stages that no target needs as such. Shared layers stay."""
    run(*argv("rmi", "--prune"))


def config(reference: str) -> dict[str, Any]:
    """The image's OCI configuration."""
    inspected = json.loads(run(*argv("inspect", "--type", "image", reference)))
    image: dict[str, Any] = inspected["OCIv1"]
    return image


def layers(reference: str) -> list[Layer]:
    """The image's layers, lowest first."""
    root = paths.buildah_root() / "root"
    stored = json.loads((root / "overlay-images" / "images.json").read_text())
    names = (reference, f"localhost/{reference}")
    found = [i for i in stored if set(names) & set(i.get("names", []))]
    if not found:
        raise ClusterError(f"{reference} is not in buildah's store: build it first")
    known = {
        layer["id"]: layer
        for layer in json.loads((root / "overlay-layers" / "layers.json").read_text())
    }
    result: list[Layer] = []
    identity = found[0]["layer"]
    while identity:
        layer = known[identity]
        result.append(Layer(layer["diff-digest"], root / "overlay" / identity / "diff"))
        identity = layer.get("parent", "")
    result.reverse()
    expected = config(reference)["rootfs"]["diff_ids"]
    if [layer.diff_id for layer in result] != expected:
        raise ClusterError(f"buildah's store holds other layers than {reference} names: rebuild it")
    return result
