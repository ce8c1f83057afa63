"""SHA-256 of files, whole and in the parts in which S3 takes them, in one pass."""

import base64
import hashlib
from pathlib import Path

from lora_jobs.store.interface import FileHash

PART_BYTES = 64 * 2**20
"""Parts of an upload; files of this size and more go in parts."""
_READ_BYTES = 4 * 2**20


def hash_file(file: Path) -> FileHash:
    """Read a file once.

    A file below `PART_BYTES` has S3's checksum of the whole; a larger one the composite checksum
    of its parts (S3 API, "Checking object integrity": COMPOSITE type).
    """
    whole = hashlib.sha256()
    part, parts, size = hashlib.sha256(), [], 0
    with file.open("rb") as stream:
        in_parts = file.stat().st_size >= PART_BYTES
        while block := stream.read(_READ_BYTES):
            whole.update(block)
            size += len(block)
            if in_parts:
                part.update(block)
                if size % PART_BYTES == 0:
                    parts.append(part.digest())
                    part = hashlib.sha256()
    if in_parts and size % PART_BYTES:
        parts.append(part.digest())
    return file_hash(size, whole.hexdigest(), tuple(p.hex() for p in parts))


def file_hash(size: int, sha256: str, parts: tuple[str, ...] = ()) -> FileHash:
    """The hash of a file from digests that are known.

    Args:
        size: In bytes.
        sha256: Hex, of the whole.
        parts: Hex, of each `PART_BYTES`; they count for a file of that size and more.
    """
    if size < PART_BYTES:
        return FileHash(size, sha256, plain_checksum(sha256))
    return FileHash(size, sha256, _composite([bytes.fromhex(part) for part in parts]), parts)


def plain_checksum(sha256: str) -> str:
    """S3's checksum of an object that was sent in one piece, from the hex digest."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _composite(parts: list[bytes]) -> str:
    composite = hashlib.sha256(b"".join(parts)).digest()
    return f"{base64.b64encode(composite).decode()}-{len(parts)}"
