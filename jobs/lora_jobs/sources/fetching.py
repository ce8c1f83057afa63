"""The pinned files of a source as a local folder, which appears when all of it is right."""

import shutil
from pathlib import Path

from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.parallel import in_parallel
from lora_jobs.sources.pins import Pin, PinnedFile
from lora_jobs.sources.place import Source
from lora_jobs.store.artifacts import Done
from lora_jobs.store.hashing import hash_file
from lora_jobs.store.interface import ObjectChanged, ObjectMissing, checked_key


def fetch_source(source: Source, pin: Pin, folder: Path, done: Done = lambda _: None) -> None:
    """Download what was pinned and nothing else.

    Raises:
        Waiting: A file is gone or another one (SourceChanged), or cannot be read.
    """
    incoming = folder.with_name(f".incoming-{folder.name}")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)

    def get(file: PinnedFile) -> None:
        target = incoming / checked_key(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.download(file, target)
        except (ObjectMissing, ObjectChanged):
            raise source_changed(source.uri, file.path) from None
        if target.stat().st_size != file.size:
            raise source_changed(source.uri, file.path)
        if file.sha256 and hash_file(target).sha256 != file.sha256:
            raise source_changed(source.uri, file.path)
        done(file.size)

    in_parallel(get, pin.files)
    incoming.rename(folder)


def check_unchanged(source: Source, pin: Pin) -> None:
    """Raise `Waiting` unless what is there now is still what was pinned."""
    now = {f.path: f for f in source.files()}
    chosen = [now[f.path] for f in pin.files if f.path in now]
    same = {f.path: f.identity() for f in source.identified(chosen)}
    for file in pin.files:
        if same.get(file.path) != file.identity():
            raise source_changed(source.uri, file.path)


def source_changed(uri: str, path: str) -> Waiting:
    """The refusal to go on with other bytes than those that were pinned."""
    return Waiting(
        Reason.SOURCE_CHANGED,
        f"{path} of {uri} is no longer what was pinned; put it back, or set spec.refresh to a new "
        "value to take what is there now",
    )
