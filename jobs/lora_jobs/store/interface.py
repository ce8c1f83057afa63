"""What a place that holds objects can do; keys are relative to the place's URI.

Both backends pass the same contract tests. Whatever a user can put right (access, a missing bucket,
an unreachable endpoint) leaves a backend as `Waiting` with its reason; the two errors below are for
the caller, who knows what the object was.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

JSON = "application/json"
BYTES = "application/octet-stream"
STALE_SECONDS = 24 * 3600
"""No upload takes so long; parts of a killed one are paid for and not listed."""


class StoredObject(NamedTuple):
    """One object of a listing."""

    key: str
    size: int
    etag: str
    """Changes when the content does; compare for equality only."""
    modified_at: float
    """Seconds since the epoch, by the server's clock."""


class Content(NamedTuple):
    """A small object, read as a whole or in part."""

    data: bytes
    etag: str


class ObjectMissing(Exception):
    """There is no object with this key."""


class ObjectChanged(Exception):
    """The object is no longer the one with the given ETag."""


class FileHash(NamedTuple):
    """A file's identity, and what a server says about it after an upload."""

    size: int
    sha256: str
    """Hex, of the whole file."""
    checksum: str
    """S3's checksum: SHA-256 in base64, or for a file in parts the CRC32C of the parts' CRC32C in
    base64, `-`, number of parts."""
    parts: tuple[str, ...] = ()
    """CRC32C of each part in base64, of a file that goes in parts and was hashed here."""


class ObjectStore(Protocol):
    """A prefix of a bucket, or a folder."""

    def uri(self, key: str = "") -> str:
        """Where a key stands, for people."""
        ...

    def below(self, prefix: str) -> "ObjectStore":
        """The same place, with keys relative to `prefix`."""
        ...

    def check(self) -> None:
        """Raise `Waiting` when the place is not there and cannot be made, or is not ours to use."""
        ...

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Every object whose key starts with `prefix`, sorted by key."""
        ...

    def head(self, key: str) -> StoredObject | None:
        """One object without its content, None when it is not there."""
        ...

    def is_stored(self, key: str, expected: FileHash) -> bool:
        """Whether the object has the expected size and, where the server keeps one, checksum."""
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """Bytes of an object, None when it is not there. Meant for small ones and for headers.

        A range that ends beyond the object is cut; one that starts beyond it is empty.
        """
        ...

    def create(self, key: str, data: bytes, content_type: str = JSON) -> bool:
        """Write an object that must not be there yet; False when one is. One writer wins."""
        ...

    def replace(self, key: str, data: bytes, etag: str, content_type: str = JSON) -> bool:
        """Replace the object that still has this ETag; False when it has not or is gone."""
        ...

    def write(self, key: str, data: bytes, content_type: str = JSON) -> None:
        """Write an object, whatever was there."""
        ...

    def upload(
        self, key: str, file: Path, content_type: str = BYTES, known: FileHash | None = None
    ) -> None:
        """Write a file as an object, whatever was there. A reader sees all of it or nothing.

        Args:
            key: Of the object.
            file: Its content.
            content_type: Of the object.
            known: The file's hash where it was computed before; else it is now.
        """
        ...

    def download(self, key: str, file: Path, etag: str = "") -> str:
        """Write an object to a local file, or go on where an interrupted download ended.

        Returns:
            Hex SHA-256 of the file, computed in the same pass.

        Raises:
            ObjectMissing: It is not there.
            ObjectChanged: `etag` is given and it has another one.
        """
        ...

    def remove_stale(self, now: float) -> int:
        """Remove what uploads left behind that were killed `STALE_SECONDS` ago; how many.

        Args:
            now: Seconds since the epoch.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when it is not there."""
        ...


def checked_key(key: str) -> str:
    """The key, if it stays below its place.

    Raises:
        ValueError: It is empty or absolute, or a segment is empty, `.` or `..`.
    """
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key:
        raise ValueError(f"not a relative path: {key!r}")
    return key
