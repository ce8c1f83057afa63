"""A scope of a store with releases in it, as runs leave them, but of tiny files."""

from pathlib import Path

from lora_api import layout
from lora_api.digests import canonical_json, digest_of
from lora_api.jobcontract import Release, Stage, StageCall, StageResult
from lora_jobs.collecting import Filed, Garbage, Work, filed_releases, find_garbage, made_by
from lora_jobs.stages.publish import ReleaseRecord
from lora_jobs.store.actions import read_action, write_action
from lora_jobs.store.artifacts import has_artifact, publish_artifact
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import ObjectStore

LATER = 2.0e9


class ReleaseBucket:
    """Releases: each of an adapter (its merge) and a recipe (its quantize)."""

    def __init__(self, folder: Path, store: ObjectStore | None = None) -> None:
        self.folder, self.store = folder, store or DirectoryStore(folder / "store")

    def call(self, stage: Stage, *what: int) -> StageCall:
        """A piece of work."""
        return StageCall(stage=stage, parameters={"of": list(what)})

    def make(self, stage: Stage, *what: int) -> StageResult:
        """Do it, unless it is done."""
        call = self.call(stage, *what)
        if found := read_action(self.store, call):
            return found
        digest = ""
        if stage in (Stage.MERGE, Stage.QUANTIZE):
            files = self.folder / f"{stage}-{'-'.join(map(str, what))}"
            files.mkdir(exist_ok=True)
            (files / "model.safetensors").write_text(f"{stage} {what}")
            digest = publish_artifact(self.store, files)
        result = StageResult(stage=stage, input_hash=call.input_hash, digest=digest)
        return write_action(self.store, call, result, {})

    def publish(self, name: str, adapter: int, recipe: int) -> str:
        """A whole run; the release's id."""
        merged = self.make(Stage.MERGE, adapter)
        quantized = self.make(Stage.QUANTIZE, adapter, recipe)
        measured = self.make(Stage.BENCHMARK, adapter, recipe)
        self.store.write(layout.samples(measured.input_hash), b"{}")
        release = Release(
            id=digest_of([adapter, recipe])[7:15], artifact=quantized.digest, recipe={}
        )
        record = ReleaseRecord(
            release=release,
            candidate="default",
            run_id="r",
            pins={},
            stages={
                "merge": merged.input_hash,
                "quantize/default": quantized.input_hash,
                "benchmark/default": measured.input_hash,
            },
            measurements={},
            provenance={},
        )
        key = layout.release(name, release.id)
        self.store.write(key, canonical_json(record.to_json()))
        self.store.write(layout.verdict(name, release.id, "g"), b"{}")
        return release.id

    def is_whole(self, filed: Filed) -> bool:
        """Whether a release can serve, and a run with its inputs finds all of its work."""
        record = filed.record
        works = [Work(label.partition("/")[0], h) for label, h in record.stages.items()]
        entries = all(self.store.head(w.keys[-1]) for w in works)
        artifacts = {record.release.artifact, *(made_by(self.store)(w) for w in works)} - {""}
        return entries and all(has_artifact(self.store, d) for d in artifacts)

    def garbage(self, name: str, *keep: str, younger_than: float = LATER) -> Garbage:
        """What would go."""
        filed = filed_releases(self.store)
        return find_garbage(filed, name, keep, younger_than, made_by(self.store))
