"""Folders on a volume that Jobs share: each is filled once, and hashed again before it is used.

    CACHE/NAME/index.json      path, size and sha256 of every file, written when all are there
    CACHE/NAME/files/          what stages read
    CACHE/NAME.partial/        while it is filled, and until a fill that was cut short goes on
    CACHE/.NAME.filling        locked by the one who looks whether it is there, and fills it
    CACHE/.NAME.used           locked together by those who use it, alone by who removes it

A process keeps what it uses locked until it ends, so nothing is removed under it, and the kernel
gives back the locks of one that dies. What was used longest ago goes first when room is needed. A
cache that cannot be used is none: the stage fetches into its own work folder, and says so.
"""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lora_api.digests import canonical_json
from lora_api.jobcontract import CACHE_DIR_ENV, CACHE_LIMIT_ENV
from lora_jobs.store.artifacts import Manifest, hash_folder

_FILES, _INDEX, _PARTIAL = "files", "index.json", ".partial"
_AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB
Fill = Callable[[Path], None]
"""Makes the folder at a path, all of it or none."""


class Unusable(Exception):
    """The cache cannot give a folder; `str()` says why."""


class FolderCache:
    """A folder on a shared volume.

    Args:
        root: Where it lies.
        limit_bytes: What all entries together may take; None: what the volume has.
    """

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        self._root, self._limit_bytes = root, limit_bytes
        self._held: dict[str, IO[str]] = {}

    def folder(self, name: str, size_bytes: int, fill: Fill, work: Path, digest: str = "") -> Path:
        """The folder of that name, filled if it is not there; `work` where the cache is unusable.

        Args:
            name: With the identity of what is in it.
            size_bytes: Of all of it.
            fill: Makes it; what it raises but for `OSError` is raised on.
            work: Where it goes when the cache cannot take it.
            digest: Of its content, where that is known.
        """
        try:
            return self._entry(name, size_bytes, fill, digest)
        except (OSError, Unusable) as error:
            print(f"without the cache: {error}", file=sys.stderr, flush=True)
            fill(work)
            return work

    def _entry(self, name: str, size_bytes: int, fill: Fill, digest: str) -> Path:
        entry = self._root / name
        if name in self._held:
            return entry / _FILES
        self._root.mkdir(parents=True, exist_ok=True)
        used = self._lock(name, "used").open("w")
        try:
            with self._filling(name):
                fcntl.flock(used, fcntl.LOCK_SH)
                is_new = not (entry / _INDEX).is_file()
                if is_new:
                    self._fill(entry, size_bytes, fill)
            if not is_new and not _is_whole(entry, digest):
                self._fill_again(entry, used, size_bytes, fill)
            os.utime(entry)
        except BaseException:
            used.close()
            raise
        self._held[name] = used
        return entry / _FILES

    def _fill_again(self, entry: Path, used: IO[str], size_bytes: int, fill: Fill) -> None:
        with self._filling(entry.name):
            try:
                fcntl.flock(used, _AT_ONCE)
            except BlockingIOError:
                raise Unusable(f"{entry.name} is damaged, and another Job uses it") from None
            self._fill(entry, size_bytes, fill)
            fcntl.flock(used, fcntl.LOCK_SH)

    def _fill(self, entry: Path, size_bytes: int, fill: Fill) -> None:
        self._make_room(entry, size_bytes)
        partial = entry.with_name(entry.name + _PARTIAL)
        partial.mkdir(exist_ok=True)
        try:
            fill(partial / _FILES)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / _INDEX).write_bytes(canonical_json(hash_folder(partial / _FILES).to_json()))
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)

    def _make_room(self, own: Path, size_bytes: int) -> None:
        if self._limit_bytes is None:
            return
        others = [e for e in self._root.iterdir() if e.is_dir() and not _is_of(e, own)]
        taken = {entry: _bytes_of(entry) for entry in others}
        excess = sum(taken.values()) + size_bytes - self._limit_bytes
        for entry in sorted(taken, key=lambda e: e.stat().st_mtime):
            if excess > 0 and self._remove(entry):
                excess -= taken[entry]
        if excess > 0:
            raise Unusable(
                f"{size_bytes:,} bytes do not fit into its limit of {self._limit_bytes:,} beside "
                "what is in use"
            )

    def _remove(self, entry: Path) -> bool:
        """Remove an entry that nobody uses or fills; False where somebody does."""
        name = entry.name.removesuffix(_PARTIAL)
        try:
            with self._filling(name, _AT_ONCE), self._lock(name, "used").open("w") as used:
                fcntl.flock(used, _AT_ONCE)
                shutil.rmtree(entry, ignore_errors=True)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def _filling(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        with self._lock(name, "filling").open("w") as lock:
            try:
                fcntl.flock(lock, _AT_ONCE)
            except BlockingIOError:
                if how & fcntl.LOCK_NB:
                    raise
                print(f"another Job fills {name} in the cache; waiting", flush=True)
                fcntl.flock(lock, how)
            yield

    def _lock(self, name: str, what: str) -> Path:
        return self._root / f".{name}.{what}"


def cache_from(environment: Mapping[str, str] = os.environ) -> FolderCache | None:
    """The cache that the pod has mounted, if any."""
    root, limit = environment.get(CACHE_DIR_ENV), environment.get(CACHE_LIMIT_ENV)
    return FolderCache(Path(root), int(limit) if limit else None) if root else None


def _is_whole(entry: Path, digest: str) -> bool:
    try:
        index = Manifest.model_validate_json((entry / _INDEX).read_bytes())
        return index.digest == (digest or index.digest) and hash_folder(entry / _FILES) == index
    except (OSError, ValueError):
        return False


def _is_of(entry: Path, own: Path) -> bool:
    return entry.name in (own.name, own.name + _PARTIAL)


def _bytes_of(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
