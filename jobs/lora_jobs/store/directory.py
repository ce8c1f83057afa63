"""A folder as the store: local runs, tests, and `file://` sources.

Every write goes to a temporary file that is renamed or linked into place, so that a reader (and a
run killed half-way) sees all of an object or nothing. Temporary files start with `.` and are never
listed. Replacing takes a lock on the store's folder; creating needs none, a hard link is exclusive.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.store.hashing import hash_file
from lora_jobs.store.interface import (
    BYTES,
    JSON,
    STALE_SECONDS,
    Content,
    FileHash,
    ObjectChanged,
    ObjectMissing,
    StoredObject,
    checked_key,
)

LINK_BYTES = 64 * 2**20
"""Files of this size and more are linked instead of copied when they are fetched."""
_TEMPORARY = ".incoming-"


class DirectoryStore:
    """A folder; it is made at the first write."""

    follows_folder_links = True

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def uri(self, key: str = "") -> str:
        """A `file://` URI."""
        return f"file://{self.root / key if key else self.root}"

    def below(self, prefix: str) -> "DirectoryStore":
        """A folder in it."""
        return DirectoryStore(self.path(prefix))

    def check(self) -> None:
        """Nothing to do: the folder is made at the first write."""

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / checked_key(key)

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Walks the folder of the prefix only; links are followed (`follows_folder_links`)."""
        folder = prefix.rpartition("/")[0]
        found = []
        with _explained(self.root):
            for parent, _, names in os.walk(
                self.root / folder, followlinks=self.follows_folder_links
            ):
                for name in names:
                    file = Path(parent, name)
                    key = file.relative_to(self.root).as_posix()
                    if key.startswith(prefix) and not name.startswith(_TEMPORARY):
                        found.append(_stored(key, file))
        return sorted(found)

    def head(self, key: str) -> StoredObject | None:
        """None for a folder."""
        file = self.path(key)
        with _explained(file):
            return _stored(key, file) if file.is_file() else None

    def is_stored(self, key: str, expected: FileHash) -> bool:
        """By size: a folder keeps no checksums, and a fetch hashes everything anyway."""
        found = self.head(key)
        return found is not None and found.size == expected.size

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """Reads the range only."""
        file = self.path(key)
        if not file.is_file():
            return None
        with _explained(file), file.open("rb") as stream:
            stream.seek(start)
            return Content(stream.read(-1 if length is None else length), _etag(file))

    def create(self, key: str, data: bytes, content_type: str = JSON) -> bool:
        """By a hard link, which fails when the name is taken."""
        file = self.path(key)
        with _explained(file), self._incoming(file) as incoming:
            incoming.write_bytes(data)
            try:
                os.link(incoming, file)
            except FileExistsError:
                return False
            return True

    def replace(self, key: str, data: bytes, etag: str, content_type: str = JSON) -> bool:
        """Compares and replaces under a lock of the store."""
        with _explained(self.root), _locked(self.root):
            found = self.head(key)
            if found is None or found.etag != etag:
                return False
            self.write(key, data, content_type)
            return True

    def write(self, key: str, data: bytes, content_type: str = JSON) -> None:
        """Replaces atomically."""
        file = self.path(key)
        with _explained(file), self._incoming(file) as incoming:
            incoming.write_bytes(data)
            incoming.replace(file)

    def upload(
        self, key: str, file: Path, content_type: str = BYTES, known: FileHash | None = None
    ) -> None:
        """Copies."""
        target = self.path(key)
        with _explained(target), self._incoming(target) as incoming:
            shutil.copyfile(file, incoming)
            incoming.replace(target)

    def download(self, key: str, file: Path, etag: str = "") -> str:
        """Copies small files and links to large ones: what is fetched is read, not changed."""
        source = self.path(key)
        found = self.head(key)
        if found is None:
            raise ObjectMissing(key)
        if etag and found.etag != etag:
            raise ObjectChanged(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        with _explained(source):
            if found.size >= LINK_BYTES:
                file.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, file)
        return hash_file(file).sha256

    def remove_stale(self, now: float) -> int:
        """Temporary files of writers that were killed."""
        removed = 0
        for file in self.root.rglob(f"{_TEMPORARY}*"):
            with suppress(FileNotFoundError):  # its writer has just ended
                if file.is_file() and now - file.stat().st_mtime > STALE_SECONDS:
                    file.unlink()
                    removed += 1
        return removed

    def delete(self, key: str) -> None:
        """Unlinks; a folder that it leaves empty stays."""
        file = self.path(key)
        with _explained(file):
            file.unlink(missing_ok=True)

    @contextmanager
    def _incoming(self, target: Path) -> Iterator[Path]:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
        os.close(handle)
        incoming = Path(name)
        incoming.chmod(0o644)
        try:
            yield incoming
        finally:
            incoming.unlink(missing_ok=True)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Waiting(
            Reason.ACCESS_DENIED,
            f"no permission for {error.filename or path}; give this user access to it",
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise Waiting(
            Reason.STORE_UNREACHABLE, f"{error.filename or path} is a file where a folder is needed"
        ) from error


def _stored(key: str, file: Path) -> StoredObject:
    state = file.stat()
    return StoredObject(key, state.st_size, _etag(file), state.st_mtime)


def _etag(file: Path) -> str:
    # The inode tells two writes within one clock tick apart: each write is a new file.
    state = file.stat()
    return f"{state.st_mtime_ns:x}-{state.st_size:x}-{state.st_ino:x}"
