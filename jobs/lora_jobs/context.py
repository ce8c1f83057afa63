"""What a stage program works with: its request, its inputs as local files, and the store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lora_api.jobcontract import Progress, StageRequest, StageResult
from lora_jobs.store.interface import FileHash, ObjectStore

ReportProgress = Callable[[Progress], None]


class Inputs(Protocol):
    """Files of sources and artifacts, verified against their digests when they arrive."""

    def source(self, name: str) -> Path:
        """The folder of a source (base, adapter0, task, calibration0, ...); fetched once.

        Raises:
            Waiting: It is not there, not readable, or no longer what was pinned.
        """
        ...

    def artifact(self, digest: str) -> Path:
        """The folder of an artifact of the store, every file's sha256 checked."""
        ...


class Outputs(Protocol):
    """Where a stage leaves what it made."""

    def publish_artifact(self, folder: Path, known: Mapping[str, FileHash] | None = None) -> str:
        """Upload a folder content-addressed, manifest last; returns its digest. Idempotent.

        Args:
            folder: The artifact.
            known: Hashes of files that were computed when they were written, by path.
        """
        ...

    def put_file(self, key: str, file: Path, content_type: str) -> str:
        """Write one file under a key of the scope, replacing it; returns its URI."""
        ...

    def put_json_once(self, key: str, document: object) -> bool:
        """Create a JSON document; False when one is there already (it is left as it was)."""
        ...

    def get_json(self, key: str) -> dict[str, object] | None:
        """A JSON document, or None."""
        ...

    def below(self, prefix: str) -> ObjectStore:
        """A part of the scope, for what is no artifact and no document."""
        ...


@dataclass(frozen=True)
class StageContext:
    """All that a stage program is given."""

    request: StageRequest
    inputs: Inputs
    outputs: Outputs
    work: Path
    """An empty folder of its own."""
    progress: ReportProgress


StageProgram = Callable[[StageContext], StageResult]
