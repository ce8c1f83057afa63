"""Folders as immutable artifacts: `artifacts/sha256-<digest>/`, files first, manifest.json last.

The digest is over path, size and SHA-256 of every file, so equal bytes are one artifact and an
upload that was cut is continued by doing it again. No manifest means no artifact. A reader hashes
everything it fetched; a folder appears under its name only when all of it is right.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from lora_api import layout
from lora_api.base import ApiModel
from lora_api.digests import FileDigest, artifact_digest, canonical_json
from lora_api.jobcontract import Reason
from lora_jobs.errors import StageError, Waiting
from lora_jobs.parallel import in_parallel
from lora_jobs.store.documents import create_or_adopt_json, read_json
from lora_jobs.store.hashing import hash_file
from lora_jobs.store.interface import FileHash, ObjectMissing, ObjectStore, checked_key
from lora_jobs.store.resuming import forget, remove_marks, remove_others

MANIFEST = "manifest.json"

Known = Mapping[str, FileHash]
Done = Callable[[int], None]
"""Told the size in bytes of each file that is through."""


class ManifestFile(ApiModel):
    """One file of an artifact."""

    path: str
    size: Annotated[int, Field(ge=0, lt=2**53)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    checksum: str
    """As the server keeps it, see `FileHash`."""

    @property
    def hash(self) -> FileHash:
        """For comparing with the store."""
        return FileHash(self.size, self.sha256, self.checksum)


class Manifest(ApiModel):
    """The commit marker of an artifact."""

    digest: str
    files: Annotated[list[ManifestFile], Field(min_length=1)]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


def hash_folder(folder: Path, known: Known | None = None) -> Manifest:
    """Hash every file below a folder, in parallel.

    Args:
        folder: At least one file.
        known: Hashes that were computed when files were written, by path; those are not read.

    Raises:
        ValueError: A file has the manifest's name, or there are none.
    """
    return _manifest_of(_hashes(folder, _names(folder), known or {}))


def publish_artifact(
    store: ObjectStore,
    folder: Path,
    done: Done = lambda _: None,
    known: Known | None = None,
) -> str:
    """Upload what is not there yet, compare with what the server has, then write the manifest.

    Args:
        store: The scope.
        folder: The artifact.
        done: Told of each file.
        known: Hashes of files that were computed when they were written, by path.

    Raises:
        StageError: DigestMismatch when the server holds something else than was sent.
    """
    hashes = _hashes(folder, _names(folder), known or {})
    manifest = _manifest_of(hashes)
    place = store.below(layout.artifact(manifest.digest))
    place.remove_stale(time.time())

    def put(file: ManifestFile) -> None:
        if not place.is_stored(file.path, file.hash):
            place.upload(file.path, folder / file.path, known=hashes[file.path])
            if not place.is_stored(file.path, file.hash):
                raise _mismatch(place.uri(file.path), "the server holds something else than sent")
        done(file.size)

    in_parallel(put, manifest.files)
    document = manifest.to_json()
    if create_or_adopt_json(place, MANIFEST, document) != document:
        # Same digest, other bytes: only a damaged manifest can say so. Ours is right.
        place.write(MANIFEST, canonical_json(document))
    return manifest.digest


def read_manifest(store: ObjectStore, digest: str) -> Manifest | None:
    """The manifest of an artifact; None when it is absent, unreadable or of another digest."""
    document = read_json(store, layout.manifest(digest))
    try:
        manifest = Manifest.model_validate(document)
        paths = {checked_key(file.path) for file in manifest.files}
        is_tree = len(paths) == len(manifest.files) and not any(
            parent.as_posix() in paths for path in paths for parent in PurePosixPath(path).parents
        )
        if is_tree and MANIFEST not in paths and _digest(manifest.files) == digest:
            return manifest
    except ValueError:  # pydantic's ValidationError is one
        pass
    return None


def has_artifact(store: ObjectStore, digest: str) -> bool:
    """Whether manifest and every file are there, by size and, where it is kept, checksum."""
    manifest = read_manifest(store, digest)
    if manifest is None:
        return False
    place = store.below(layout.artifact(digest))
    stored = in_parallel(lambda f: place.is_stored(f.path, f.hash), manifest.files)
    return all(stored)


def fetch_artifact(
    store: ObjectStore, digest: str, folder: Path, done: Done = lambda _: None
) -> None:
    """Download an artifact and verify every SHA-256; `folder` appears when all is right.

    Raises:
        Waiting: It is not there (SourceNotFound), or a file differs (DigestMismatch).
    """
    manifest = read_manifest(store, digest)
    if manifest is None:
        raise Waiting(
            Reason.SOURCE_NOT_FOUND,
            f"artifact {digest} is not in {store.uri()}: no manifest; has it been removed, or is "
            "this another scope?",
        )
    place = store.below(layout.artifact(digest))
    incoming = folder.with_name(f".incoming-{folder.name}")
    remove_others(incoming, {file.path for file in manifest.files})

    def get(file: ManifestFile) -> None:
        target = incoming / file.path
        try:
            sha256 = place.download(file.path, target)
        except ObjectMissing:
            raise _mismatch(place.uri(file.path), "the file is missing") from None
        if sha256 != file.sha256:
            forget(target)
            raise _mismatch(place.uri(file.path), f"sha256 is {sha256}, not {file.sha256}")
        done(file.size)

    in_parallel(get, manifest.files)
    remove_marks(incoming)
    shutil.rmtree(folder, ignore_errors=True)
    incoming.rename(folder)


def verify_folder(folder: Path, digest: str) -> bool:
    """Whether a folder, e.g. on a shared volume, holds exactly this artifact."""
    return folder.is_dir() and any(folder.iterdir()) and hash_folder(folder).digest == digest


def _names(folder: Path) -> list[str]:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    if not names or MANIFEST in names:
        raise ValueError(f"{folder} cannot be an artifact: it is empty or holds a {MANIFEST}")
    return names


def _hashes(folder: Path, names: list[str], known: Known) -> dict[str, FileHash]:
    """By path; a size that is not the known one means another file."""

    def one(name: str) -> FileHash:
        file, found = folder / name, known.get(name)
        return found if found and found.size == file.stat().st_size else hash_file(file)

    return dict(zip(names, in_parallel(one, names), strict=True))


def _manifest_of(hashes: Known) -> Manifest:
    files = [
        ManifestFile(path=name, size=found.size, sha256=found.sha256, checksum=found.checksum)
        for name, found in hashes.items()
    ]
    return Manifest(digest=_digest(files), files=files)


def _digest(files: Iterable[ManifestFile]) -> str:
    return artifact_digest(FileDigest(f.path, f.size, f.sha256) for f in files)


def _mismatch(uri: str, what: str) -> StageError:
    return Waiting(
        Reason.DIGEST_MISMATCH,
        f"{uri}: {what}; remove the artifact's folder so that it is made again",
    )
