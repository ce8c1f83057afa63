"""recall: what an earlier release is, from its record: how `serving.pin` takes it up again.

A record is written only for a release that passed its gates, so what is found may serve. Its files
are looked for here, so that a release whose bytes have been collected is refused before any pod
asks for an accelerator. The bucket alone proves nothing: where keys are trusted, one of them must
have signed for the release.
"""

from pydantic import ValidationError

from lora_api import layout
from lora_api.jobcontract import Reason, Stage, StageResult
from lora_jobs.attesting.statement import Subject
from lora_jobs.attesting.stored import signed_statement
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused
from lora_jobs.stages.publish import ReleaseRecord
from lora_jobs.store.artifacts import has_artifact
from lora_jobs.store.documents import read_json
from lora_jobs.store.interface import ObjectStore
from lora_jobs.store.opening import open_store


def run(context: StageContext) -> StageResult:
    """Read the record of the release in `call.parameters`.

    Raises:
        Refused: There is no such release of this object, or its files are gone.
        Waiting: A signature is asked for, and none is there that holds.
    """
    request = context.request
    store = open_store(request.store, request.connections)
    record = read_release(store, request.run.name, str(request.call.parameters["release"]))
    if request.public_keys:
        subject = Subject(request.store.scope, request.run.name, record.release)
        signed_statement(store, subject, request.public_keys)
    if not has_artifact(store, record.release.artifact):
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"the files of release {record.release.id} are gone from "
            f"{store.uri(layout.artifact(record.release.artifact))}; pin another release",
        )
    return StageResult(
        stage=request.call.stage,
        input_hash=request.call.input_hash,
        digest=record.release.artifact,
        release=record.release,
        candidate=record.candidate,
        benchmark=_benchmark(record),
        message=f"release {record.release.id} is on record",
    )


def read_release(store: ObjectStore, name: str, release: str) -> ReleaseRecord:
    """The record of a release.

    Raises:
        Refused: There is none, or it is not one of this release.
    """
    key = layout.release(name, release)
    document = read_json(store, key)
    if document is None:
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"{store.uri(key)} is not there: {name} has no release {release}; pin one of "
            "status.releases, or none",
        )
    try:
        record = ReleaseRecord.model_validate(document)
    except ValidationError as error:
        raise Refused(
            Reason.DIGEST_MISMATCH, f"{store.uri(key)} is no release record: {error}"
        ) from None
    if record.release.id != release:
        raise Refused(
            Reason.DIGEST_MISMATCH,
            f"{store.uri(key)} is the record of release {record.release.id}; it is damaged",
        )
    return record


def _benchmark(record: ReleaseRecord) -> str:
    """Input hash of the benchmark whose recorded answers its pods must give."""
    return next(
        (h for label, h in record.stages.items() if label.split("/")[0] == Stage.BENCHMARK), ""
    )
