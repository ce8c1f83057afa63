"""Programs out of a Debian package, unpacked into the cache; nothing is installed on the machine.

For what would take too long to build. apt checks the archive's signature, so a package is as
trustworthy as those that the machine itself runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from localcluster import paths
from localcluster.console import ClusterError, step
from localcluster.shell import run, succeeds, which
from localcluster.tools import lock

PROMETHEUS = "prometheus"


def program(package: str, name: str) -> Path:
    """The machine's own program of that name, else the package's, fetched now if need be.

    Raises:
        ClusterError: There is neither the program nor apt.
    """
    if own := which(name):
        return Path(own)
    folder = paths.tools() / f"debian-{package}"
    with lock(f"debian-{package}"):
        if not folder.is_dir():
            _unpack(package, folder)
    return folder / "usr/bin" / name


def _unpack(package: str, folder: Path) -> None:
    if which("apt-get") is None:
        raise ClusterError(f"no apt-get here: install {package} with this system's package manager")
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with step(f"fetching the Debian package {package}"):
        if not succeeds("apt-cache", "show", package):  # a fresh machine has no lists
            run("apt-get", "update", "-q")
        run("apt-get", "download", "-q", package, cwd=draft)
        [archive] = draft.glob("*.deb")
        run("dpkg-deb", "--extract", archive, draft)
        archive.unlink()
    draft.rename(folder)
