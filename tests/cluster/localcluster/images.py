"""The project's images without a registry: built by buildah, hard-linked into the cluster.

An image is named `local/lora-operator-TARGET:CONTENT-HASH`; unchanged content builds nothing.
What was built is remembered, and `up` loads it again into a fresh store.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster import (
    baseimage,
    buildah,
    buildsettings,
    containerd,
    dockerfile,
    host,
    node,
    paths,
)
from localcluster.console import ClusterError, say, step
from localcluster.shell import SYSTEM_PATH, logged
from localcluster.tools import lock

KEPT = 2  # images of one target that stay: the newest, and the one before it


@dataclass(frozen=True)
class Image:
    """One built image, as remembered in the cache."""

    target: str
    reference: str
    created: str


def build(
    target: str,
    *,
    dockerfile: Path,
    context: Path | None = None,
    build_args: Mapping[str, str] | None = None,
) -> str:
    """Builds a target if its content is new, loads it if the cluster runs; returns its name."""
    host.require_node_host()
    host.ensure_packages(images=True)
    dockerfile = dockerfile.resolve()
    if not dockerfile.is_file():
        raise ClusterError(f"no Dockerfile at {dockerfile}: give one with --dockerfile")
    context = (context or dockerfile.parent).resolve()
    base = baseimage.ensure()
    arguments = {key: value.replace("{base}", base) for key, value in (build_args or {}).items()}
    arguments = {"BASE_IMAGE": base, **arguments}
    reference = name(target, dockerfile, context, arguments)
    with lock("images"):  # one at a time: a build must not prune another one's stages
        buildah.recover()
        if not buildah.exists(reference):
            with step(f"building {reference}"):
                _bud(target, reference, dockerfile, context, arguments)
        _remember(Image(target, reference, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        if node.running() is not None:
            load(reference)
        _prune(target)
    return reference


def name(target: str, file: Path, context: Path, arguments: Mapping[str, str]) -> str:
    """The image's name; its tag is the hash of what goes in."""
    digest = dockerfile.content_hash(file, context, target, dict(arguments))
    return f"local/lora-operator-{target}:{digest}"


def load(reference: str) -> None:
    """Links a built image into the running cluster, if it is not there."""
    if f"docker.io/{reference}" in containerd.references():
        return
    with step(f"linking {reference} into the cluster"):
        containerd.link(reference, buildah.config(reference), buildah.layers(reference))


def load_all() -> None:
    """Links the newest built images; `up` calls it for a cluster with a fresh store."""
    present = set(containerd.references()) if built() else set()
    for image in built():
        if f"docker.io/{image.reference}" not in present and buildah.exists(image.reference):
            load(image.reference)


def load_archive(archive: Path) -> list[str]:
    return containerd.load_archive(archive)


def built() -> list[Image]:
    """All remembered images, oldest first."""
    found = []
    for file in paths.images().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append((file.stat().st_mtime, Image(**json.loads(file.read_text()))))
    return [image for _, image in sorted(found, key=lambda pair: pair[0])]


def remove(reference: str) -> None:
    """Forgets an image everywhere; its disk is free when both stores have let go of it."""
    if node.running() is not None:
        containerd.remove(reference)
    buildah.remove(reference)
    _record(reference).unlink(missing_ok=True)


def _bud(
    target: str, reference: str, file: Path, context: Path, arguments: Mapping[str, str]
) -> None:
    log = paths.cache() / "build-logs" / f"image-{target}.log"
    log.unlink(missing_ok=True)
    words = ["bud", "--isolation", "chroot", "--layers=false", "--pull-never", "--format", "oci",
             "--signature-policy", str(buildah.policy()), "--target", target, "--tag", reference,
             "--file", str(file)]  # fmt: skip
    # No --timestamp: it would make every compiled .pyc older than its source.
    for key, value in arguments.items():
        words += ["--build-arg", f"{key}={value}"]
    settings = paths.buildah_root() / f"settings-{target}"
    shutil.rmtree(settings, ignore_errors=True)
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    words += buildsettings.volumes(settings)
    logged(buildah.argv(*words, context), log, env=environment)
    shutil.rmtree(settings)


def _prune(target: str) -> None:
    """Old images of 5 GB each would fill the disk; the newest ones stay."""
    mine = [image for image in built() if image.target == target]
    for image in mine[:-KEPT]:
        say(f"removing {image.reference}: newer ones were built")
        remove(image.reference)
    buildah.prune()


def _record(reference: str) -> Path:
    return paths.images() / f"{reference.replace('/', '_').replace(':', '-')}.json"


def _remember(image: Image) -> None:
    file = _record(image.reference)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(image)))
