"""A stage's context over local folders and a dictionary, for tests of one stage program."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_api.digests import FileDigest, artifact_digest
from lora_api.jobcontract import (
    PinnedSource,
    Progress,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_jobs.context import StageContext
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.hashing import hash_file


def digest_of_folder(folder: Path) -> str:
    """The artifact digest of a folder, or of one file."""
    root = folder.parent if folder.is_file() else folder
    files = [folder] if folder.is_file() else [f for f in folder.rglob("*") if f.is_file()]
    rows = [(str(f.relative_to(root)), hash_file(f)) for f in files]
    return artifact_digest(FileDigest(path, h.size, h.sha256) for path, h in rows)


@dataclass
class FolderInputs:
    """Sources and artifacts by name and digest."""

    sources: dict[str, Path]
    artifacts: dict[str, Path] = field(default_factory=dict)

    def source(self, name: str) -> Path:
        return self.sources[name]

    def artifact(self, digest: str) -> Path:
        return self.artifacts[digest]


@dataclass
class MemoryOutputs:
    """A store in memory; what is published stays readable under `folder`."""

    folder: Path
    documents: dict[str, Any] = field(default_factory=dict)

    def publish_artifact(self, folder: Path, known: object = None) -> str:
        digest = digest_of_folder(folder)
        folder.rename(self.folder / digest.replace(":", "-"))
        return digest

    def put_file(self, key: str, file: Path, content_type: str) -> str:
        self.documents[key] = file.read_bytes()
        return key

    def put_json_once(self, key: str, document: object) -> bool:
        if key in self.documents:
            return False
        self.documents[key] = document
        return True

    def get_json(self, key: str) -> dict[str, object] | None:
        found: dict[str, object] | None = self.documents.get(key)
        return found

    def below(self, prefix: str) -> DirectoryStore:
        return DirectoryStore(self.folder / "store" / prefix)


def stage_context(
    stage: Stage,
    parameters: dict[str, Any],
    inputs: FolderInputs,
    outputs: MemoryOutputs,
    work: Path,
    parents: dict[str, str],
    progress: list[Progress],
) -> StageContext:
    """The context of one call that is told of all sources."""
    work.mkdir(parents=True)
    call = StageCall(stage=stage, parents=parents, parameters=parameters)
    request = StageRequest(
        call=call,
        run=RunReference(namespace="team", name="demo", uid="u"),
        store=StoreReference(uri="file:///store", scope="team"),
        sources={n: PinnedSource(uri=f"file://{p}") for n, p in inputs.sources.items()},
    )
    return StageContext(request, inputs, outputs, work, progress.append)
