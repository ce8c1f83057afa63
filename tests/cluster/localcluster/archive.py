"""Writes docker-archives: one uncompressed layer, no build tool, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CREATED = "2026-01-01T00:00:00Z"


def write(target: Path, reference: str, layer: Path, command: list[str]) -> None:
    """Packs a layer tar as the image `reference` into the archive `target`."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": _CREATED,
            "config": {"Cmd": command, "Env": [_PATH], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            # Without one entry for each layer buildah refuses a second stage on top.
            "history": [{"created": _CREATED, "created_by": "localcluster"}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]
    with tarfile.open(target, "w") as archive:
        _add(archive, "manifest.json", json.dumps(manifest).encode())
        _add(archive, config_name, config)
        member = tarfile.TarInfo(layer_name)
        member.size = layer.stat().st_size
        with layer.open("rb") as file:
            archive.addfile(member, file)


def single_file(target: Path, reference: str, program: Path) -> None:
    """An image that holds one static program, which it runs."""
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        member = tarfile.TarInfo(program.name)
        member.size, member.mode = program.stat().st_size, 0o755
        with program.open("rb") as file:
            tar.addfile(member, file)
    write(target, reference, layer, [f"/{program.name}"])
    layer.unlink()
    target.with_suffix(".json").write_text(json.dumps({"reference": reference}))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
