"""A source as an interface, and how a URI and a connection become one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lora_api.connections import Connection
from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.jsonfiles import MAX_DOCUMENT_BYTES
from lora_jobs.sources.pins import Pin, PinnedFile
from lora_jobs.sources.selection import SourceKind, select


class Source(Protocol):
    """A model, adapter or data set somewhere else."""

    uri: str

    def revision(self) -> str:
        """The commit that the listing and all reads are of; empty where there is no such thing."""
        ...

    def files(self) -> list[PinnedFile]:
        """Everything that is there now; empty when nothing is."""
        ...

    def identified(self, files: Sequence[PinnedFile]) -> list[PinnedFile]:
        """The same files with their identity (ETag or SHA-256) filled in."""
        ...

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of one file; a range beyond its end is cut."""
        ...

    def download(self, file: PinnedFile, target: Path) -> str:
        """One file, of exactly the pinned ETag where it has one; what is there is continued.

        Returns:
            Its SHA-256 in hex.

        Raises:
            ObjectMissing, ObjectChanged: It is gone or another one.
        """
        ...


def open_source(uri: str, revision: str, connection: Connection | None) -> Source:
    """The source at a URI; nothing is asked of it yet.

    Raises:
        Waiting: The scheme and the connection do not fit, or its Secret is missing.
    """
    if uri.startswith("hf://"):
        if connection and connection.hugging_face is None:
            raise Waiting(
                Reason.INVALID_INPUT,
                f'{uri} needs a Hugging Face connection; "{connection.name}" is of another kind',
            )
        from lora_jobs.sources.hub import HubSource  # the client is slow to import

        return HubSource(uri, revision, connection)
    from lora_jobs.sources.stored import open_stored

    return open_stored(uri, connection)


def pin_source(kind: SourceKind, source: Source) -> Pin:
    """Resolve what is there now.

    Raises:
        Refused: Nothing useful and safe is there.
        Waiting: It cannot be read.
    """
    chosen = select(
        kind, source.uri, source.files(), lambda path: source.read(path, 0, MAX_DOCUMENT_BYTES + 1)
    )
    return Pin.of(source.uri, source.revision(), source.identified(chosen))
