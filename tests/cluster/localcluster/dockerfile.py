"""Reads as much of a Dockerfile as is needed to know what goes into one target.

The content hash covers the text of the stages that the target is made of and the files that they
copy from the context, so that a change elsewhere in the repository builds nothing.
Known limit: .dockerignore is not read here; an ignored file that changes costs one build too many.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.console import ClusterError

_SKIPPED = frozenset(
    {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)


@dataclass
class Stage:
    """From one FROM to the next. `needs` are names or numbers of other stages."""

    name: str
    lines: list[str]
    needs: set[str] = field(default_factory=set)
    sources: list[str] = field(default_factory=list)


def content_hash(dockerfile: Path, context: Path, target: str, extra: object) -> str:
    """16 hex digits over everything that goes into `target`; `extra` is JSON (base, build args)."""
    before, stages = parse(dockerfile.read_text())
    whole = hashlib.sha256(json.dumps([target, extra, before], sort_keys=True).encode())
    for stage in _reachable(stages, target):
        whole.update("\n".join(stage.lines).encode())
        for source in stage.sources:
            for path in _files(context, source):
                whole.update(_file_identity(context, path))
    return whole.hexdigest()[:16]


def parse(text: str) -> tuple[list[str], list[Stage]]:
    """The instructions before the first FROM, and the stages."""
    before: list[str] = []
    stages: list[Stage] = []
    for line in _instructions(text):
        word, _, rest = line.partition(" ")
        if word.upper() == "FROM":
            words = [w for w in rest.split() if not w.startswith("--")]
            name = words[2] if len(words) >= 3 else str(len(stages))
            stages.append(Stage(name, [line], needs={words[0]}))
        elif not stages:
            before.append(line)
        else:
            stages[-1].lines.append(line)
            _read_instruction(stages[-1], word.upper(), rest)
    return before, stages


def _instructions(text: str) -> Iterator[str]:
    """Lines with continuations joined and comments removed."""
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        joined += line.strip()
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
        elif joined:
            yield joined
            joined = ""


def _read_instruction(stage: Stage, word: str, rest: str) -> None:
    for mount in re.findall(r"--mount=(\S+)", rest):
        options = dict(pair.partition("=")[::2] for pair in mount.split(","))
        if "from" in options:
            stage.needs.add(options["from"])
        elif options.get("type", "bind") == "bind":
            stage.sources.append(options.get("source") or options.get("src") or ".")
    if word not in ("COPY", "ADD"):
        return
    flags = re.findall(r"--from=(\S+)", rest)
    if flags:
        stage.needs.update(flags)
        return
    words = re.sub(r"--\S+\s+", "", rest).strip()
    parts = json.loads(words) if words.startswith("[") else words.split()
    stage.sources += [p for p in parts[:-1] if not p.startswith("<<") and "://" not in p]


def _reachable(stages: list[Stage], target: str) -> list[Stage]:
    by_name = {name: s for i, s in enumerate(stages) for name in (s.name.lower(), str(i))}
    if target.lower() not in by_name:
        names = ", ".join(stage.name for stage in stages)
        raise ClusterError(f"no stage {target} in the Dockerfile; it has: {names}")
    wanted, found = [target.lower()], []
    while wanted:
        stage = by_name.get(wanted.pop())
        if stage is not None and stage not in found:
            found.append(stage)
            wanted += sorted(need.lower() for need in stage.needs)
    return sorted(found, key=stages.index)


def _files(context: Path, source: str) -> Iterator[Path]:
    """The files that a COPY source names, in a fixed order."""
    pattern = source.strip("/") or "."
    if any(letter in pattern for letter in "*?["):
        starts = sorted(context.glob(pattern))
    else:
        starts = [context / pattern]
    for start in starts:
        if start.is_symlink() or not start.is_dir():
            yield start
            continue
        for folder, names, files in os.walk(start):
            names[:] = sorted(n for n in names if n not in _SKIPPED and not n.endswith(".egg-info"))
            yield from (Path(folder) / f for f in sorted(files) if not f.endswith(".pyc"))


def _file_identity(context: Path, path: Path) -> bytes:
    try:
        mode = path.lstat().st_mode
        body = os.readlink(path).encode() if stat.S_ISLNK(mode) else path.read_bytes()
    except OSError as error:
        raise ClusterError(
            f"the Dockerfile copies {path}, which cannot be read: {error}"
        ) from error
    name = path.relative_to(context)
    return f"{name}\0{mode & 0o111:o}\0{hashlib.sha256(body).hexdigest()}\n".encode()
