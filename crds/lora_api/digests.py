"""Identity: canonical JSON (RFC 8785) and what is hashed of it."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import rfc8785


class FileDigest(NamedTuple):
    """One file of an artifact: its path in it, size in bytes and hex SHA-256."""

    path: str
    size: int
    sha256: str


def canonical_json(value: Any) -> bytes:
    """RFC 8785 JSON. Floats are refused by convention: callers pass strings and integers."""
    return rfc8785.dumps(value)


def digest_of(value: Any) -> str:
    """`sha256:<hex>` of the canonical JSON of `value`."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def artifact_digest(files: Iterable[FileDigest]) -> str:
    """The digest of a file set: equal bytes at equal paths are the same artifact."""
    rows = sorted(files)
    return digest_of([{"path": f.path, "size": f.size, "sha256": f.sha256} for f in rows])


def short(digest: str, length: int = 8) -> str:
    """The first hex digits, for labels and names only."""
    return digest.removeprefix("sha256:")[:length]
