"""Sources and artifacts as local folders, fetched once into the work folder.

A folder appears under its name when all of it is right, so one that is there is complete. The work
folder belongs to one run; an artifact found there is hashed again all the same.
"""

from pathlib import Path

from lora_api import layout
from lora_api.digests import short
from lora_api.jobcontract import Reason, StageRequest
from lora_jobs.connections import find_connection
from lora_jobs.context import ReportProgress
from lora_jobs.errors import Waiting
from lora_jobs.foldercache import FolderCache
from lora_jobs.progress import TransferProgress
from lora_jobs.sources.fetching import fetch_source
from lora_jobs.sources.pins import Pin
from lora_jobs.sources.place import open_source
from lora_jobs.store.artifacts import fetch_artifact, read_manifest, verify_folder
from lora_jobs.store.documents import read_json
from lora_jobs.store.interface import ObjectStore


class StoreInputs:
    """`Inputs` of a stage request."""

    def __init__(
        self,
        request: StageRequest,
        store: ObjectStore,
        folder: Path,
        progress: ReportProgress,
        cache: FolderCache | None = None,
    ) -> None:
        self._request, self._store = request, store
        self._folder, self._progress, self._cache = folder, progress, cache

    def source(self, name: str) -> Path:
        """The pinned files of a source."""
        pinned = self._request.sources[name]
        wanted = self._request.call.parents.get(name, pinned.digest)
        folder = self._folder / f"{name}-{short(wanted, 16)}"
        if folder.is_dir():
            return folder
        key = layout.pin(self._request.run.name, pinned.key)
        pin = _read_pin(self._store, key, pinned.uri)
        if pin.digest != wanted:
            raise Waiting(
                Reason.DIGEST_MISMATCH,
                f"the pin of {pinned.uri} in {self._store.uri(key)} is {pin.digest}, not "
                f"{wanted}; set spec.refresh to a new value to resolve it again",
            )
        connection = find_connection(self._request.connections, pinned.connection)
        source = open_source(pinned.uri, pin.revision, connection)
        total = sum(f.size for f in pin.files)

        def fill(target: Path) -> None:
            report = TransferProgress(self._progress, f"fetching {name}", total)
            fetch_source(source, pin, target, report)

        # What lies on a volume or on this machine is linked to, and links mean nothing elsewhere.
        if self._cache and pinned.uri.startswith(("s3://", "hf://")):
            return self._cache.folder(f"source-{_plain(wanted)}", total, fill, folder)
        fill(folder)
        return folder

    def artifact(self, digest: str) -> Path:
        """A folder whose every file has the sha256 of the manifest."""
        folder = self._folder / _plain(digest)
        if verify_folder(folder, digest):
            return folder
        manifest = read_manifest(self._store, digest)
        total = manifest.size if manifest else 0

        def fill(target: Path) -> None:
            report = TransferProgress(self._progress, f"fetching {short(digest)}", total)
            fetch_artifact(self._store, digest, target, report)

        if self._cache:
            name = f"artifact-{_plain(digest)}"
            return self._cache.folder(name, total, fill, folder, digest)
        fill(folder)
        return folder


def _plain(digest: str) -> str:
    return digest.replace(":", "-")


def _read_pin(store: ObjectStore, key: str, uri: str) -> Pin:
    try:
        pin = Pin.model_validate(read_json(store, key))
        if pin.is_consistent():
            return pin
    except ValueError:
        pass
    raise Waiting(
        Reason.SOURCE_NOT_FOUND,
        f"the pin of {uri} is not readable at {store.uri(key)}; set spec.refresh to a new value to "
        "resolve it again",
    )
