"""How far a download got, in a small file beside it, so that an interrupted one goes on.

A mark says only what was asked for and how many bytes from the beginning are there. It is never
trusted for what they are: the whole file is hashed at the end, those bytes too.
"""

import json
import os
from collections.abc import Set
from pathlib import Path

_MARK = ".mark"


def done_of(file: Path, etag: str) -> int:
    """Bytes from the beginning that are there of this object; 0 where it is another or none."""
    try:
        document = json.loads(_mark(file).read_text())
        done = int(document["done"])
        is_it = document["etag"] == etag and file.stat().st_size >= min(done, document["size"])
        return max(done, 0) if is_it else 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0


def set_done(file: Path, etag: str, done: int) -> None:
    """Write the mark, all of it or nothing."""
    draft = _mark(file).with_suffix(".new")
    draft.write_text(json.dumps({"etag": etag, "done": done, "size": file.stat().st_size}))
    os.replace(draft, _mark(file))


def forget(file: Path) -> None:
    """Remove a file that came out wrong, so that it is fetched from the beginning."""
    file.unlink(missing_ok=True)
    _mark(file).unlink(missing_ok=True)


def remove_marks(folder: Path) -> None:
    """After the last file of a fetch."""
    for mark in folder.rglob(f".*{_MARK}"):
        mark.unlink()


def remove_others(folder: Path, wanted: Set[str]) -> None:
    """Make the folder, and keep of an earlier fetch only files that are wanted, and their marks."""
    folder.mkdir(parents=True, exist_ok=True)
    keep = {folder / path for path in wanted}
    keep |= {_mark(file) for file in keep}
    for entry in folder.rglob("*"):
        if (entry.is_symlink() or not entry.is_dir()) and entry not in keep:
            entry.unlink()


def _mark(file: Path) -> Path:
    return file.with_name(f".{file.name}{_MARK}")
