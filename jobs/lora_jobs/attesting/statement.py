"""The statement of a release: in-toto Statement v1 with a SLSA provenance v1 predicate. Pure.

    subject               every file of the model, and the artifact as a whole
    externalParameters    the object, the release (artifact and serving recipe), the gates
    resolvedDependencies  base, adapters and data sets, each as it was pinned
    byproducts            each stage: what it was given, what it made, with which tools; the verdict

It holds no time and no attempt: publishing again says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_api import layout
from lora_api.digests import canonical_json
from lora_api.gates import Judgement
from lora_api.jobcontract import PinnedSource, Release, StageCall, StageResult
from lora_jobs.jsonfiles import parse_object
from lora_jobs.store.artifacts import ManifestFile

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://lora-operator.dev/release/v1"
BUILDER = "https://lora-operator.dev/publish"

Json = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a statement must be of, to be of use here.

    Attributes:
        scope: Of the store, which is a namespace's.
        name: The object.
        release: Its files, by their digest, and how they are served.
    """

    scope: str
    name: str
    release: Release

    def to_json(self) -> Json:
        """As it stands in the statement."""
        return {
            "object": {"scope": self.scope, "name": self.name},
            "release": self.release.to_json(),
        }


@dataclass(frozen=True)
class Work:
    """A finished stage.

    Attributes:
        provenance: Versions of the tools, and the image where there was one, by name.
        uri: Of its action entry.
    """

    call: StageCall
    result: StageResult
    provenance: Mapping[str, str]
    uri: str


@dataclass(frozen=True)
class Verdict:
    """Why the release may serve.

    Attributes:
        rules: The gates, and what was accepted in spite of them.
        uri: Of the record.
    """

    judgement: Judgement
    rules: Json
    uri: str


def statement(
    subject: Subject,
    files: Sequence[ManifestFile],
    sources: Mapping[str, PinnedSource],
    works: Sequence[Work],
    verdict: Verdict,
    run_id: str,
    tools: Mapping[str, str],
) -> bytes:
    """Canonical JSON of what `publish` has seen.

    Args:
        subject: What it is of.
        files: Of the artifact.
        sources: By the name under which stages know them.
        works: The stages that led here.
        verdict: The judgement.
        run_id: Of the run's inputs.
        tools: What publishes.
    """
    artifact = subject.release.artifact
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {**subject.to_json(), "gates": verdict.rules},
            "resolvedDependencies": [_source(name, s) for name, s in sources.items()],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": dict(tools)},
            "metadata": {"invocationId": run_id},
            "byproducts": [*(_byproduct(work) for work in works), _judged(verdict)],
        },
    }
    whole = {"name": layout.artifact(artifact), "digest": _sha256(artifact)}
    document = {
        "_type": STATEMENT,
        "subject": [*({"name": f.path, "digest": {"sha256": f.sha256}} for f in files), whole],
        "predicateType": PREDICATE,
        "predicate": predicate,
    }
    return canonical_json(document)


def checked(payload: bytes, subject: Subject) -> Json:
    """A statement that is of this very subject.

    Raises:
        ValueError: It is of another one, or no such statement.
    """
    document = parse_object(payload)
    if (document.get("_type"), document.get("predicateType")) != (STATEMENT, PREDICATE):
        raise ValueError("it is no SLSA provenance in an in-toto statement")
    definition = _inside(_inside(document, "predicate"), "buildDefinition")
    if definition.get("buildType") != BUILD_TYPE:
        raise ValueError("it tells of something else than a release")
    said, wanted = _inside(definition, "externalParameters"), subject.to_json()
    for part in ("object", "release"):
        if said.get(part) != wanted[part]:
            raise ValueError(f"it was signed for another {_told(part, said.get(part))}")
    return document


def _inside(document: Json, key: str) -> Json:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _told(part: str, said: object) -> str:
    if not isinstance(said, dict):
        return part
    if part == "object":
        return f"object, {said.get('name')} of scope {said.get('scope')}"
    return f"release, {said.get('id')} of artifact {said.get('artifact')}"


def _source(name: str, source: PinnedSource) -> Json:
    """The digest is of the list of files, with their own where the place tells them."""
    commit = {"gitCommit": source.revision} if source.uri.startswith("hf://") else {}
    return {"name": name, "uri": source.uri, "digest": _sha256(source.digest) | commit}


def _byproduct(work: Work) -> Json:
    call, made = work.call, work.result.digest
    return {
        "name": f"{call.stage.value}/{call.candidate}" if call.candidate else call.stage.value,
        "uri": work.uri,
        **({"digest": _sha256(made)} if made else {}),
        "annotations": {
            "inputHash": call.input_hash,
            "stageVersion": call.stage_version,
            "parents": call.parents,
            "parameters": call.parameters,
            "tools": dict(work.provenance),
        },
    }


def _judged(verdict: Verdict) -> Json:
    return {"name": "verdict", "uri": verdict.uri, "annotations": verdict.judgement.to_json()}


def _sha256(digest: str) -> Json:
    return {"sha256": digest.removeprefix("sha256:")}
