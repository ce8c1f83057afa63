"""This machine's package settings for RUN steps, mounted while building and never baked in.

What pip and uv are told outside a container they must be told inside: certificates, index,
wheels, mirror. Only what exists is mounted. The base image has empty files where they go, so
no layer changes.
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

from localcluster import baseimage
from localcluster.shell import run, succeeds, which

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PIP_SKIPPED = frozenset({"cert", "cache-dir", "require-virtualenv", "user", "target", "prefix"})


def volumes(folder: Path) -> list[str]:
    """`-v` options for buildah; generated files are written into `folder`."""
    folder.mkdir(parents=True)
    mounts = [(bundle, _CERTIFICATES, "ro") for bundle in _bundle()]
    mounts += [(sources, "/etc/apt/sources.list.d", "ro") for sources in _apt_sources(folder)]
    pip = pip_settings()
    for local in _local_folders(pip):
        mounts.append((local, str(local), "ro"))
    if pip or mounts:
        mounts.append((_pip_conf(folder, pip), "/etc/pip.conf", "ro"))
        mounts.append((_uv_toml(folder, pip), "/etc/uv/uv.toml", "ro"))
    # Downloads are shared with the host, so that a rebuild fetches nothing twice.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for name, own in (("pip", "PIP_CACHE_DIR"), ("uv", "UV_CACHE_DIR")):
        shared = Path(os.environ.get(own) or cache / name)
        shared.mkdir(parents=True, exist_ok=True)
        mounts.append((shared, f"/root/.cache/{name}", "rw"))
    return [word for source, at, mode in mounts for word in ("-v", f"{source}:{at}:{mode}")]


def pip_settings() -> dict[str, str]:
    """pip's settings from files and environment, by option name; the environment wins."""
    pip = _pip()
    if pip is None:
        return {}
    ordered = sorted(run(*pip, "config", "list").splitlines(), key=lambda k: k.startswith(":env:"))
    settings: dict[str, str] = {}
    for line in ordered:
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    return {key: value for key, value in settings.items() if key not in _PIP_SKIPPED}


def _pip() -> list[str] | None:
    if succeeds(sys.executable, "-m", "pip", "--version"):
        return [sys.executable, "-m", "pip"]
    found = which("pip3") or which("pip")
    return [found] if found else None


def _bundle() -> list[Path]:
    """The certificate bundle this machine uses; none if it is only the distribution's own."""
    for variable in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        file = os.environ.get(variable)
        if file and Path(file).is_file():
            return [Path(file)]
    return [Path(_CERTIFICATES)] if Path(_CERTIFICATES).is_file() else []


def _apt_sources(folder: Path) -> list[Path]:
    """Where this machine's apt gets Debian itself from; the base image names no mirror.

    Other people's repositories stay out: their keys are not in the image, and apt would fail.
    """
    if which("apt-get") is None:
        return []
    wanted = ("Created-By: Packages", "Origin: Debian")
    shown = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", *wanted)
    rows = {row for row in shown.splitlines() if row.split()[1].startswith(baseimage.SUITE)}
    if not rows:
        return []
    sources = folder / "apt"
    sources.mkdir()
    text = "".join(f"deb [signed-by={_DEBIAN_KEYS}] {row}\n" for row in sorted(rows))
    (sources / "debian.list").write_text(text)
    return [sources]


def _local_folders(pip: dict[str, str]) -> list[Path]:
    words = pip.get("find-links", "").split()
    return [Path(word) for word in words if word.startswith("/") and Path(word).is_dir()]


def _pip_conf(folder: Path, pip: dict[str, str]) -> Path:
    lines = ["[global]", f"cert = {_CERTIFICATES}"]
    lines += [f"{key} = {' '.join(value.split())}" for key, value in sorted(pip.items())]
    file = folder / "pip.conf"
    file.write_text("\n".join(lines) + "\n")
    return file


def _uv_toml(folder: Path, pip: dict[str, str]) -> Path:
    """The user's own uv.toml where there is one, else what can be said from pip's settings."""
    file = folder / "uv.toml"
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for own in (os.environ.get("UV_CONFIG_FILE"), home / "uv" / "uv.toml", "/etc/uv/uv.toml"):
        if own and Path(own).is_file():
            file.write_text(Path(own).read_text())
            return file
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    index = index or pip.get("index-url")
    extra = os.environ.get("UV_EXTRA_INDEX_URL") or pip.get("extra-index-url") or ""
    lines = ["system-certs = true"]  # the mounted bundle, not uv's built-in one
    if index:
        lines.append(f'index-url = "{index}"')
    if extra:
        lines.append(f"extra-index-url = {extra.split()!r}")
    file.write_text("\n".join(lines) + "\n")
    return file
