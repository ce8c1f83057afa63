"""The pinned files of a source as a local folder, which appears when all of it is right."""

from pathlib import Path

from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.parallel import in_parallel
from lora_jobs.sources.pins import Pin, PinnedFile
from lora_jobs.sources.place import Source
from lora_jobs.store.artifacts import Done
from lora_jobs.store.interface import ObjectChanged, ObjectMissing, checked_key
from lora_jobs.store.resuming import forget, remove_marks, remove_others


def fetch_source(source: Source, pin: Pin, folder: Path, done: Done = lambda _: None) -> None:
    """Download what was pinned and nothing else.

    Raises:
        Waiting: A file is gone or another one (SourceChanged), or cannot be read.
    """
    incoming = folder.with_name(f".incoming-{folder.name}")
    remove_others(incoming, {file.path for file in pin.files})

    def get(file: PinnedFile) -> None:
        target = incoming / checked_key(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            sha256 = source.download(file, target)
        except (ObjectMissing, ObjectChanged):
            raise source_changed(source.uri, file.path) from None
        if target.stat().st_size != file.size or (file.sha256 and sha256 != file.sha256):
            forget(target)
            raise source_changed(source.uri, file.path)
        done(file.size)

    in_parallel(get, pin.files)
    remove_marks(incoming)
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
