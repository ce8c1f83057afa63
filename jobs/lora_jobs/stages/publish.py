"""publish: write the release that a rollout may point to, and the judgement that lets it.

Nothing ungated serves, so the judgement in the request is not taken on trust: the line is walked
once more over the store's own entries and must lead to the very release that is asked for. Both
documents hold no time and no attempt, so that publishing again writes nothing.

Before the record, which is what a rollout looks for, stands the statement of what the release was
made of, signed where `spec.provenance` names a key.
"""

from typing import Any

from lora_api import layout
from lora_api.base import ApiModel
from lora_api.gates import Judgement, Measurements, gates_hash, rules_document
from lora_api.jobcontract import PinnedSource, Reason, Release, StageRequest, StageResult
from lora_api.line import Line, walk
from lora_api.provenance import Provenance
from lora_api.spec import Spec, parse_spec
from lora_jobs.attesting.keys import fingerprint
from lora_jobs.attesting.signing import signing_key
from lora_jobs.attesting.statement import Subject, Verdict, Work, statement
from lora_jobs.attesting.stored import (
    is_signed,
    signed_statement,
    write_signed,
    write_unsigned,
)
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused, Waiting
from lora_jobs.provenance import tool_versions
from lora_jobs.store.actions import provenance_of, read_action
from lora_jobs.store.artifacts import read_manifest
from lora_jobs.store.documents import create_or_adopt_json
from lora_jobs.store.interface import ObjectStore
from lora_jobs.store.opening import open_store


class ReleaseRecord(ApiModel):
    """A release as it stands in the store. Identity is `release.id`; the rest is its history."""

    release: Release
    candidate: str
    run_id: str
    pins: dict[str, PinnedSource]
    stages: dict[str, str]
    """Input hash of each stage that led here, by stage and candidate."""
    measurements: Measurements
    """For display only."""
    provenance: dict[str, str]
    """Versions of the tools that published it."""


def run(context: StageContext) -> StageResult:
    """Publish the release of the request.

    Raises:
        Refused: The store's own measurements do not lead to this release.
        Waiting: A measurement or the artifact has gone from the store, or a signature is asked for
            and cannot be made.
    """
    request = context.request
    spec, release = _asked(request)
    store = open_store(request.store, request.connections)
    line = _walked(store, spec, request, release)
    assert line.judgement is not None  # it passed
    signer = _attest(store, spec, request, line, release)
    standing = _write_record(store, request, line, release)
    _write_verdict(store, request.run.name, spec, release, line.judgement)
    earlier = standing.run_id != request.run_id
    return StageResult(
        stage=request.call.stage,
        input_hash=request.call.input_hash,
        digest=release.artifact,
        message=f"release {release.id}"
        + (f", signed by key {signer[:16]}" if signer else "")
        + (", published before" if earlier else ""),
    )


def _asked(request: StageRequest) -> tuple[Spec, Release]:
    if request.spec is None or request.release is None:
        raise Refused(Reason.INVALID_INPUT, "publish needs a spec and a release in its request")
    return parse_spec(request.spec), request.release


def _walked(store: ObjectStore, spec: Spec, request: StageRequest, release: Release) -> Line:
    pins = {name: pin.digest for name, pin in request.sources.items()}
    image = str(release.recipe.get("image", ""))
    line = walk(spec, request.run.name, pins, image, lambda call: read_action(store, call))
    if line.missing:
        raise Waiting(
            Reason.SOURCE_NOT_FOUND,
            f"the store no longer holds what {line.missing.stage} made for release {release.id}; "
            "it is made again",
        )
    if line.release != release:
        verdict = line.judgement.verdict if line.judgement else "none"
        raise Refused(
            Reason.INVALID_INPUT,
            f"release {release.id} does not follow from the measurements in {store.uri()} (verdict "
            f"{verdict}); nothing is published",
        )
    return line


def _attest(
    store: ObjectStore, spec: Spec, request: StageRequest, line: Line, release: Release
) -> str:
    """Write what the release was made of; where keys are trusted, one of them must have signed.

    Returns:
        Fingerprint of the key that vouches for it; empty where nobody does.
    """
    asked = spec.provenance or Provenance()
    subject = Subject(request.store.scope, request.run.name, release)
    said = _statement(store, spec, request, line, subject)
    signer = ""
    if asked.signing:
        signer = _sign(store, asked, subject, said)
    else:
        write_unsigned(store, subject, said)
    if asked.public_keys and not signer:
        signer = signed_statement(store, subject, asked.public_keys).key
    return signer


def _sign(store: ObjectStore, asked: Provenance, subject: Subject, said: bytes) -> str:
    """A key that is gone is not missed where a trusted one has signed before."""
    try:
        key = signing_key(asked)  # one that is trusted, where keys are named
    except Waiting:
        if asked.public_keys and is_signed(store, subject, asked.public_keys):
            return ""
        raise
    write_signed(store, subject, said, key)
    return fingerprint(key.public_key())


def _statement(
    store: ObjectStore, spec: Spec, request: StageRequest, line: Line, subject: Subject
) -> bytes:
    release, rules = subject.release, spec.overrides or ()
    manifest = read_manifest(store, release.artifact)
    if manifest is None:
        raise Waiting(
            Reason.SOURCE_NOT_FOUND,
            f"the store no longer holds artifact {release.artifact} of release {release.id}; it is "
            "made again",
        )
    assert line.judgement is not None  # it passed
    works = [
        Work(c, r, provenance_of(store, c), store.uri(layout.action(c.stage, c.input_hash)))
        for c, r in line.done
    ]
    record = layout.verdict(subject.name, release.id, gates_hash(spec.gates, rules))
    verdict = Verdict(line.judgement, rules_document(spec.gates, rules), store.uri(record))
    run_id, tools = request.run_id, tool_versions()
    return statement(subject, manifest.files, request.sources, works, verdict, run_id, tools)


def _write_record(
    store: ObjectStore, request: StageRequest, line: Line, release: Release
) -> ReleaseRecord:
    record = ReleaseRecord(
        release=release,
        candidate=line.candidate,
        run_id=request.run_id,
        pins=request.sources,
        stages={_label(call.stage, call.candidate): call.input_hash for call, _ in line.done},
        measurements=line.measurements,
        provenance=tool_versions(),
    )
    key = layout.release(request.run.name, release.id)
    standing = ReleaseRecord.model_validate(create_or_adopt_json(store, key, record.to_json()))
    if standing.release != release:
        raise Refused(
            Reason.DIGEST_MISMATCH,
            f"{store.uri(key)} is the record of another release; remove it, it is damaged",
        )
    return standing


def _write_verdict(
    store: ObjectStore, name: str, spec: Spec, release: Release, judgement: Judgement
) -> None:
    document: dict[str, Any] = {
        "release": release.id,
        "gates": rules_document(spec.gates, spec.overrides or ()),
        "judgement": judgement.to_json(),
    }
    key = layout.verdict(name, release.id, gates_hash(spec.gates, spec.overrides or ()))
    create_or_adopt_json(store, key, document)


def _label(stage: str, candidate: str) -> str:
    return f"{stage}/{candidate}" if candidate else stage
