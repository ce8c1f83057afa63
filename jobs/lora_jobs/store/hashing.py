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
    return FileHash(size, whole.hexdigest(), _checksum(whole.digest(), parts))


def plain_checksum(sha256: str) -> str:
    """S3's checksum of an object that was sent in one piece, from the hex digest."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _checksum(whole: bytes, parts: list[bytes]) -> str:
    if not parts:
        return base64.b64encode(whole).decode()
    composite = hashlib.sha256(b"".join(parts)).digest()
    return f"{base64.b64encode(composite).decode()}-{len(parts)}"
