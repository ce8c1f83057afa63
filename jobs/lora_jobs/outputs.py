"""Where a stage leaves what it made: the scope of the store."""

from pathlib import Path
from typing import Any

from lora_jobs.store.artifacts import Known, publish_artifact
from lora_jobs.store.documents import create_json, read_json
from lora_jobs.store.interface import ObjectStore


class StoreOutputs:
    """`Outputs` of a stage."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def publish_artifact(self, folder: Path, known: Known | None = None) -> str:
        """Files first, manifest last; returns the digest."""
        return publish_artifact(self.store, folder, known=known)

    def put_file(self, key: str, file: Path, content_type: str) -> str:
        """Replaces what was there; returns the URI."""
        self.store.upload(key, file, content_type)
        return self.store.uri(key)

    def put_json_once(self, key: str, document: object) -> bool:
        """False when a document is there already."""
        return create_json(self.store, key, document)

    def get_json(self, key: str) -> dict[str, Any] | None:
        """None when there is none."""
        return read_json(self.store, key)

    def below(self, prefix: str) -> ObjectStore:
        """The same store, with keys relative to `prefix`."""
        return self.store.below(prefix)
