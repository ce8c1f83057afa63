"""Sources in a bucket (`s3://`) or a folder (`pvc://`, `file://`): a prefix, or one object.

A bucket's files are identified by ETag and read with `If-Match`; a folder's by SHA-256, as nothing
else about a local file is worth trusting.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lora_api.connections import Connection
from lora_jobs.parallel import in_parallel
from lora_jobs.sources.pins import PinnedFile
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.hashing import hash_file
from lora_jobs.store.interface import ObjectMissing, ObjectStore
from lora_jobs.store.opening import open_place


def open_stored(uri: str, connection: Connection | None) -> "StoredSource":
    """The prefix or object at a URI."""
    scheme, _, rest = uri.rstrip("/").partition("://")
    parent, _, name = rest.rpartition("/")
    if not parent.strip("/"):  # a bucket or claim as a whole
        return StoredSource(uri, open_place(uri.rstrip("/"), connection), None, name)
    beside = open_place(f"{scheme}://{parent}", connection)
    return StoredSource(uri, beside.below(name), beside, name)


class StoredSource:
    """All objects below a URI, or the one object that the URI names."""

    def __init__(self, uri: str, below: ObjectStore, beside: ObjectStore | None, name: str) -> None:
        self.uri = uri
        self._below, self._beside, self._name = below, beside, name

    def revision(self) -> str:
        """There is none."""
        return ""

    def files(self) -> list[PinnedFile]:
        """The one object, or everything below."""
        if self._single is not None:
            return [self._single]
        return [PinnedFile(path=o.key, size=o.size, etag=o.etag) for o in self._below.list()]

    def identified(self, files: Sequence[PinnedFile]) -> list[PinnedFile]:
        """Hashes local files; the server did the others."""
        place = self._place
        if not isinstance(place, DirectoryStore):
            return list(files)
        hashes = in_parallel(lambda f: hash_file(place.path(f.path)).sha256, files)
        return [
            PinnedFile(path=file.path, size=file.size, sha256=sha256)
            for file, sha256 in zip(files, hashes, strict=True)
        ]

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Raises `ObjectMissing` when the file is gone."""
        content = self._place.read(path, start, length)
        if content is None:
            raise ObjectMissing(path)
        return content.data

    def download(self, file: PinnedFile, target: Path) -> str:
        """With `If-Match` where the pin has an ETag."""
        return self._place.download(file.path, target, file.etag)

    @cached_property
    def _single(self) -> PinnedFile | None:
        found = self._beside.head(self._name) if self._beside else None
        return found and PinnedFile(path=self._name, size=found.size, etag=found.etag)

    @property
    def _place(self) -> ObjectStore:
        if self._single is not None and self._beside is not None:
            return self._beside
        return self._below
