"""What is known of a file's bytes, from one pass: SHA-256, and the checksums that S3 compares.

SHA-256 of the whole is the identity, and what a fetch proves. S3 compares what is sent: with that
same SHA-256 for a small file, and with the CRC32C of each part for a large one, for a second
SHA-256 of every byte would take as long as the first.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import google_crc32c

from lora_jobs.store.interface import FileHash

PART_BYTES = 64 * 2**20
"""Parts of an upload; files of this size and more go in parts."""
_READ_BYTES = 2**20
"""Few enough for the CPU's cache: both sums read it there."""


class Hashes:
    """Takes a file's bytes in order."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._size = 0
        self._finished: list[str] = []
        self._part, self._room = 0, PART_BYTES

    def add(self, block: Any) -> None:
        """Go on with a block: bytes, or an array of uint8."""
        self._whole.update(block)
        self._size += len(block)
        while len(block):
            piece, block = block[: self._room], block[self._room :]
            self._part = google_crc32c.extend(self._part, piece)
            self._room -= len(piece)
            if not self._room:
                self._finished.append(_encoded(self._part))
                self._part, self._room = 0, PART_BYTES

    def finish(self) -> FileHash:
        """Of all that was added."""
        rest = [_encoded(self._part)] if self._room < PART_BYTES else []
        return file_hash(self._size, self._whole.hexdigest(), (*self._finished, *rest))


def hash_file(file: Path) -> FileHash:
    """Read a file once."""
    hashes = Hashes()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            hashes.add(block)
    return hashes.finish()


def file_hash(size: int, sha256: str, parts: tuple[str, ...] = ()) -> FileHash:
    """The hash of a file from what is known.

    A file of `PART_BYTES` and more has the composite checksum of its parts (S3 API, "Checking
    object integrity": COMPOSITE type).

    Args:
        size: In bytes.
        sha256: Hex, of the whole.
        parts: CRC32C of each `PART_BYTES`, in base64; they count for a file of that size and more.
    """
    if size < PART_BYTES:
        return FileHash(size, sha256, plain_checksum(sha256))
    return FileHash(size, sha256, _composite(parts), parts)


def plain_checksum(sha256: str) -> str:
    """S3's SHA-256 checksum of an object that was sent in one piece, from the hex digest."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _composite(parts: tuple[str, ...]) -> str:
    joined = b"".join(base64.b64decode(part) for part in parts)
    return f"{_encoded(google_crc32c.value(joined))}-{len(parts)}"


def _encoded(crc32c: int) -> str:
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()
