"""What a store holds for releases that are not kept, and how it goes.

    release record -> action entries of its stages -> artifacts that they made

What a release that stays, of any object in the scope, also refers to stays. A younger release than
asked for stays too, so that a run beside this one does not lose what it has just made. Reports,
verdicts and statements stay: they are the history, and small.

An artifact goes before its entry and the entry before the record, so that a collection that is cut
short leaves the list of what is left for the next one. An artifact without its files counts as
absent, so an entry that outlives it for a moment misleads nobody: its stage is run again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from lora_api import layout
from lora_api.jobcontract import Progress, Reason
from lora_jobs.context import ReportProgress
from lora_jobs.errors import Refused
from lora_jobs.stages.publish import ReleaseRecord
from lora_jobs.store.actions import ActionEntry
from lora_jobs.store.documents import read_json
from lora_jobs.store.interface import ObjectStore, StoredObject

RELEASES, ARTIFACTS, CHECKPOINTS = "releases/", "artifacts/", "checkpoints/"


class Filed(NamedTuple):
    """A release record, and where and since when it is on file."""

    name: str
    """Of the object."""
    written_at: float
    """Seconds since the epoch."""
    record: ReleaseRecord


class Work(NamedTuple):
    """A piece of work that led to a release."""

    stage: str
    input_hash: str

    @property
    def keys(self) -> tuple[str, str]:
        """Its raw record, if it has one, and its action entry, which goes last."""
        return layout.samples(self.input_hash), layout.action(self.stage, self.input_hash)


@dataclass(frozen=True)
class Garbage:
    """What goes, in the order in which it goes.

    Attributes:
        artifacts: Digests.
        works: Pieces of work whose entries go.
        releases: Ids.
        checkpoints: Folders of stages that nobody finished.
        too_young: Ids of releases that would go and are younger than asked for.
    """

    artifacts: tuple[str, ...] = ()
    works: tuple[Work, ...] = ()
    releases: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    too_young: tuple[str, ...] = ()


def filed_releases(store: ObjectStore) -> list[Filed]:
    """Every release of the scope, newest first.

    Raises:
        Refused: A record cannot be read, so that nobody knows what it refers to.
    """
    found = []
    for stored in store.list(RELEASES):
        name, _, file = stored.key.removeprefix(RELEASES).partition("/")
        if "/" in file or not file.endswith(".json"):
            continue  # a verdict
        try:
            record = ReleaseRecord.model_validate(read_json(store, stored.key))
        except ValidationError:
            raise Refused(
                Reason.DIGEST_MISMATCH,
                f"{store.uri(stored.key)} is no release record, so what it needs is unknown; "
                "nothing is collected until it is removed",
            ) from None
        found.append(Filed(name, stored.modified_at, record))
    return sorted(found, key=lambda f: f.written_at, reverse=True)


def find_garbage(
    filed: Collection[Filed],
    name: str,
    keep: Collection[str],
    younger_than: float,
    made_by: Callable[[Work], str],
) -> Garbage:
    """What may go. Pure but for `made_by`.

    Args:
        filed: Every release of the scope.
        name: The object whose releases are collected; those of others stay.
        keep: Ids of its releases that stay.
        younger_than: A release that was written after this time stays, seconds since the epoch.
        made_by: Digest of the artifact that a piece of work made, empty if none is on record.
    """
    unwanted = [f for f in filed if f.name == name and f.record.release.id not in keep]
    young = [f for f in unwanted if f.written_at > younger_than]
    going = [f for f in unwanted if f not in young]
    staying = [f for f in filed if f not in going]
    needed = set(_works(staying))
    works = tuple(dict.fromkeys(w for w in _works(going) if w not in needed))
    needed_artifacts = {f.record.release.artifact for f in staying} | {made_by(w) for w in needed}
    made = [f.record.release.artifact for f in going] + [made_by(w) for w in works]
    return Garbage(
        artifacts=tuple(dict.fromkeys(d for d in made if d and d not in needed_artifacts)),
        works=works,
        releases=tuple(f.record.release.id for f in going),
        too_young=tuple(f.record.release.id for f in young),
    )


def find_unreleased(
    stored: Iterable[StoredObject],
    filed: Collection[Filed],
    younger_than: float,
    made_by: Callable[[Work], str],
) -> Garbage:
    """Artifacts that no release of the scope needs, e.g. of runs that failed their gates.

    What was measured of them stays on record, so a later run makes only the model again.

    Args:
        stored: What lies below the artifacts of the scope.
        filed: Every release of the scope.
        younger_than: An artifact with a file that was written after this time stays.
        made_by: Digest of the artifact that a piece of work made, empty if none is on record.
    """
    idle = _untouched_since(younger_than, stored, depth=2)
    digests = [folder.split("/")[1].replace("-", ":", 1) for folder in idle]
    needed = {f.record.release.artifact for f in filed} | {made_by(w) for w in _works(filed)}
    return Garbage(artifacts=tuple(d for d in digests if d not in needed))


def find_unfinished(stored: Iterable[StoredObject], younger_than: float) -> tuple[str, ...]:
    """Folders of checkpoints to which nobody has added since; a stage that ends removes its own.

    Args:
        stored: What lies below the checkpoints of the scope.
        younger_than: One with a file that was written after this time stays.
    """
    return tuple(_untouched_since(younger_than, stored, depth=3))


def _untouched_since(
    younger_than: float, stored: Iterable[StoredObject], depth: int
) -> Iterator[str]:
    """Folders whose names have `depth` parts and in which everything is as old as that."""
    written: dict[str, float] = {}
    for item in stored:
        folder = "/".join(item.key.split("/")[:depth])
        written[folder] = max(item.modified_at, written.get(folder, 0.0))
    return (folder for folder, at in written.items() if at <= younger_than)


def made_by(store: ObjectStore) -> Callable[[Work], str]:
    """Look a piece of work's artifact up in its action entry."""

    def digest(work: Work) -> str:
        try:
            entry = ActionEntry.model_validate(read_json(store, work.keys[-1]))
        except ValidationError:  # collected before, or damaged
            return ""
        return entry.result.digest

    return digest


def bytes_of(store: ObjectStore, garbage: Garbage) -> dict[str, int]:
    """Size of each artifact and checkpoint that goes, by digest or folder."""
    folders = {digest: layout.artifact(digest) for digest in garbage.artifacts}
    folders |= {folder: folder for folder in garbage.checkpoints}
    return {
        what: sum(stored.size for stored in store.below(folder).list())
        for what, folder in folders.items()
    }


def collect(store: ObjectStore, name: str, garbage: Garbage, progress: ReportProgress) -> None:
    """Remove it. What is gone already is no error.

    Manifests go first, so that nobody can build on these artifacts any more; what somebody has
    published until then gets its manifest back and stays.
    """
    spared = _without_manifests(store, name, garbage)
    removals = list(_removals(store, name, garbage, spared))
    for done, (what, keys) in enumerate(removals, 1):
        for key in keys:
            store.delete(key)
        progress(Progress(done=done, total=len(removals), unit="removals", message=what))


def _without_manifests(store: ObjectStore, name: str, garbage: Garbage) -> set[str]:
    manifests = {d: store.read(layout.manifest(d)) for d in garbage.artifacts}
    for digest in manifests:
        store.delete(layout.manifest(digest))
    wanted = {
        f.record.release.artifact
        for f in filed_releases(store)
        if f.name != name or f.record.release.id not in garbage.releases
    }
    for digest, manifest in manifests.items():
        if digest in wanted and manifest:
            store.write(layout.manifest(digest), manifest.data)
    return wanted


def _removals(
    store: ObjectStore, name: str, garbage: Garbage, spared: Collection[str]
) -> Iterable[tuple[str, list[str]]]:
    """What is removed, and the keys of it."""
    artifacts = [layout.artifact(digest) for digest in garbage.artifacts if digest not in spared]
    for folder in (*artifacts, *garbage.checkpoints):
        yield folder, [f"{folder}/{stored.key}" for stored in store.below(folder).list()]
    for work in garbage.works:
        yield work.keys[-1], list(work.keys)
    for release in garbage.releases:
        yield f"release {release}", [layout.release(name, release)]


def _works(filed: Iterable[Filed]) -> Iterable[Work]:
    for _, _, record in filed:
        for label, input_hash in record.stages.items():
            yield Work(label.partition("/")[0], input_hash)
