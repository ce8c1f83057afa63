"""The base of all images: a minimal Debian from debootstrap, in place of a public base image.

Nothing of this machine's package configuration goes in. /etc/pip.conf and /etc/uv/uv.toml are there
and empty: builds mount the user's settings over them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from localcluster import archive, buildah, paths
from localcluster.console import step
from localcluster.shell import SYSTEM_PATH, logged, run, which
from localcluster.tools import lock

SUITE = "bookworm"
# libnuma1 and libgomp1: vLLM's CPU extension does not load without them and says so very late.
PACKAGES = ("python3", "python3-venv", "ca-certificates", "libnuma1", "libgomp1")
_RECIPE = 2  # raise when the steps below change
_EMPTY_FILES = ("etc/pip.conf", "etc/uv/uv.toml")


def reference() -> str:
    """The base image's name in buildah's store."""
    recipe = json.dumps([SUITE, PACKAGES, _RECIPE])
    return f"localhost/lora-operator-base:{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


def ensure() -> str:
    """The base image's name; makes it if it is not there (under a minute on an idle machine)."""
    with lock("base"):
        if not buildah.exists(reference()):
            _make()
    return reference()


def _make() -> None:
    work = paths.cache() / "base" / reference().rpartition(":")[2]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    log = paths.cache() / "build-logs" / "base.log"
    root, layer, packed = work / "root", work / "layer.tar", work / "base.tar"
    environment = {**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C"}
    with step(f"making the base image (Debian {SUITE}, {', '.join(PACKAGES)}), about a minute"):
        logged(
            ["unshare", "--mount", "--propagation", "private", "debootstrap", "--variant=minbase",
             f"--include={','.join(PACKAGES)}", SUITE, root, *_mirror()],
            log, env=environment,
        )  # fmt: skip
        _slim(root)
        run("tar", "--sort=name", "--numeric-owner", "--xattrs", "-C", root, "-cf", layer, ".")
        archive.write(packed, reference(), layer, ["/bin/sh"])
        buildah.pull(packed, reference(), log)
    shutil.rmtree(work)


def _slim(root: Path) -> None:
    """Removes caches and what debootstrap copied from this machine."""
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man",
                   "usr/share/locale", "var/log"):  # fmt: skip
        for entry in (root / folder).iterdir() if (root / folder).is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for name in ("etc/resolv.conf", "etc/hostname", "etc/apt/sources.list"):
        (root / name).unlink(missing_ok=True)
    for name in _EMPTY_FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _mirror() -> list[str]:
    """The mirror this machine's apt uses; without one debootstrap takes its default."""
    if which("apt-get") is None:
        return []
    shown = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages")
    for line in shown.splitlines():
        site, _, release = line.partition(" ")
        if release == SUITE:
            return [site]
    return []
