"""What a Job receives and returns: request, result, progress, exit codes.

A request travels as JSON in the environment variable `REQUEST_ENV`; a result is written as JSON to
the termination message (at most `MAX_RESULT_BYTES`) and in full into the store's action entry. The
local run hands the same request to the same program and reads the same file.

A stage's work is identified by `StageCall.input_hash`: only what is in `parents` and `parameters`
may influence what it makes. Where things lie (URIs, connections) is not hashed.
"""

import base64
import json
import zlib
from enum import IntEnum, StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from lora_api.base import ApiModel, Digest
from lora_api.connections import Connection
from lora_api.digests import digest_of
from lora_api.gates import Judgement, Measurements

REQUEST_ENV = "LORA_STAGE_REQUEST"
RESULT_PATH_ENV = "LORA_STAGE_RESULT"
DEFAULT_RESULT_PATH = "/dev/termination-log"
WORK_DIR_ENV = "LORA_WORK_DIR"
CREDENTIALS_DIR_ENV = "LORA_CREDENTIALS_DIR"
DEFAULT_CREDENTIALS_DIR = "/var/run/lora-operator/connections"
"""One folder a connection, in it the keys of its Secret as files."""
CACHE_DIR_ENV = "LORA_CACHE_DIR"
CACHE_LIMIT_ENV = "LORA_CACHE_LIMIT_BYTES"
DEFAULT_CACHE_DIR = "/var/run/lora-operator/cache"
"""Where the volume of `jobs.defaults.cache` is mounted."""
CLAIMS_DIR_ENV = "LORA_CLAIMS_DIR"
DEFAULT_CLAIMS_DIR = "/var/run/lora-operator/claims"
"""Where the PersistentVolumeClaims of `pvc://` sources are mounted, each under its name."""
AUTHORITIES_DIR_ENV = "LORA_AUTHORITIES_DIR"
DEFAULT_AUTHORITIES_DIR = "/var/run/lora-operator/authorities"
AUTHORITIES_FILE = "ca.crt"
"""In a folder of each connection that has a CA bundle."""
SIGNING_DIR_ENV = "LORA_SIGNING_DIR"
DEFAULT_SIGNING_DIR = "/var/run/lora-operator/signing"
"""Holds the file `provenance.signing.key`, in the Jobs of `SIGNING_STAGES` only."""
IMAGE_ENV = "LORA_STAGE_IMAGE"
"""The image that the container runs, as its pod names it; for the record."""
MAX_RESULT_BYTES = 4096
PACKED = "packed"
"""Key of a termination message whose JSON did not fit as it is, e.g. of many candidates."""


class Stage(StrEnum):
    """The stage programs, in the order of a run."""

    RESOLVE = "resolve"
    MERGE = "merge"
    QUANTIZE = "quantize"
    EVALUATE = "evaluate"
    BENCHMARK = "benchmark"
    REPORT = "report"
    PUBLISH = "publish"
    VERIFY = "verify"
    RECALL = "recall"
    """Reads an earlier release from its record; only with `serving.pin`."""
    COLLECT = "collect"
    """Removes releases that are not kept; only with `artifact.keepReleases`."""


WORKING_STAGES = (Stage.MERGE, Stage.QUANTIZE, Stage.EVALUATE, Stage.BENCHMARK)
"""Pure functions of their inputs, with an action entry; the others are probes."""
OCCASIONAL_STAGES = (Stage.RECALL, Stage.COLLECT)
"""No run needs them."""
ACCELERATED_STAGES = (Stage.QUANTIZE, Stage.EVALUATE, Stage.BENCHMARK)
SIGNING_STAGES = (Stage.RESOLVE, Stage.PUBLISH)
"""What is told of the signing key: publish signs, and resolve says before any work that it can."""
STAGE_VERSIONS = dict.fromkeys(Stage, 1) | {Stage.EVALUATE: 3, Stage.BENCHMARK: 3}
"""Raised only when the meaning or the bytes of a stage's output change."""


class ExitCode(IntEnum):
    """How a stage program ends; anything else is retried."""

    DONE = 0
    REFUSED = 2  # the input is bad: Stalled until the spec changes
    WAITING = 3  # the world must change (access, a missing source): tried again at a back-off
    USAGE = 64


class Reason(StrEnum):
    """Why a stage program ended with REFUSED or WAITING; also the condition's reason."""

    INVALID_INPUT = "InvalidInput"
    ADAPTER_MISMATCH = "AdapterMismatch"
    UNSUPPORTED_ADAPTER = "UnsupportedAdapter"
    UNSAFE_FILE = "UnsafeFile"
    EMPTY_DATASET = "EmptyDataset"
    TOO_LITTLE_CALIBRATION = "TooLittleCalibration"
    DATASET_OVERLAP = "DatasetOverlap"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_CHANGED = "SourceChanged"
    ACCESS_DENIED = "AccessDenied"
    BUCKET_NOT_FOUND = "BucketNotFound"
    CREDENTIALS_MISSING = "CredentialsMissing"
    STORE_UNREACHABLE = "StoreUnreachable"
    DIGEST_MISMATCH = "DigestMismatch"
    VERIFICATION_FAILED = "VerificationFailed"
    ENGINE_FAILED = "EngineFailed"
    SIGNING_KEY_UNUSABLE = "SigningKeyUnusable"
    PROVENANCE_MISSING = "ProvenanceMissing"
    PROVENANCE_INVALID = "ProvenanceInvalid"


class StageCall(ApiModel):
    """One piece of work, identified by what goes in."""

    stage: Stage
    stage_version: int = 1
    parents: dict[str, str] = {}
    """Digest of each input by its name: base, adapter0, merged, calibration0, task, ..."""
    parameters: dict[str, Any] = {}
    """What else decides the output; values equal to a field's first default are left out."""
    candidate: str = ""
    """Name of the recipe; for display, not hashed: equal recipes are equal work."""

    @property
    def input_hash(self) -> str:
        """`sha256:<hex>` over stage, version, parents and parameters."""
        return digest_of(
            {
                "stage": self.stage.value,
                "stageVersion": self.stage_version,
                "parents": self.parents,
                "parameters": self.parameters,
            }
        )


class StoreReference(ApiModel):
    """Where the store lies and which scope of it is ours."""

    uri: str
    scope: str
    connection: str = ""


class RunReference(ApiModel):
    """The object that the work is for; for paths and logs, never hashed."""

    namespace: str
    name: str
    uid: str


class PinnedSource(ApiModel):
    """A source and what it was resolved to."""

    uri: str
    revision: str = ""
    connection: str = ""
    key: str = ""
    """`layout.pin_key` of it; the full pin (file list) stands at `layout.pin(name, key)`."""
    digest: str = ""


class Endpoint(ApiModel):
    """One ready pod of a candidate."""

    pod: str
    url: str


class StageRequest(ApiModel):
    """All that a stage program is told."""

    call: StageCall
    run: RunReference
    store: StoreReference
    connections: list[Connection] = []
    sources: dict[str, PinnedSource] = {}
    """Sources by the name under which `call.parents` holds their digest."""
    limits: dict[str, str] = {}
    """What bounds the work without changing its result, e.g. maxDuration."""
    spec: dict[str, Any] | None = None
    """resolve: the object's spec. report and publish: the same, for the record."""
    default_image: str = ""
    """resolve: the serving image to pin when the spec names none. report: the pinned one."""
    judgement: Judgement | None = None
    """report, publish: what was decided."""
    run_id: str = ""
    release: "Release | None" = None
    endpoints: list[Endpoint] = []
    """verify: every ready pod of the candidate."""
    public_keys: list[str] | None = None
    """recall and the fetch of serving pods: one of these keys must have signed for the release. A
    list would change the pods of objects that ask for none."""

    def to_env(self) -> str:
        """The value of `REQUEST_ENV`."""
        return json.dumps(self.to_json(), separators=(",", ":"))


class Release(ApiModel):
    """What a rollout may point to: an artifact and how it is served."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    artifact: Digest
    recipe: dict[str, Any]


class StageResult(ApiModel):
    """What a stage program found or made.

    `measurements` are decimal strings by metric and condition; `pins`, `image` and `done` come from
    resolve only, `release`, `candidate` and `benchmark` (its input hash) from recall.
    """

    stage: Stage
    input_hash: str
    digest: str = ""
    """Artifact that was made, if the stage makes one."""
    measurements: Measurements = {}
    notes: dict[str, str] = {}
    """Short facts for people: why a condition is not applicable, tool versions, worst loss."""
    message: Annotated[str, StringConstraints(max_length=512)] = ""
    seconds: int = 0
    accelerator_seconds: int = 0
    pins: dict[str, PinnedSource] = {}
    image: str = ""
    done: list["StageResult"] = []
    report_uri: str = ""
    release: Release | None = None
    candidate: str = ""
    benchmark: str = ""

    def to_termination_message(self) -> str:
        """JSON of at most `MAX_RESULT_BYTES`; what is for people goes first, then it is packed.

        Raises:
            ValueError: Even packed it does not fit.
        """
        slim_done = [r.model_copy(update={"notes": {}, "message": ""}) for r in self.done]
        slimmer: list[dict[str, Any]] = [{}, {"notes": {}}, {"notes": {}, "done": slim_done}]
        for update in slimmer:
            text = json.dumps(self.model_copy(update=update).to_wire(), separators=(",", ":"))
            if len(text.encode()) <= MAX_RESULT_BYTES:
                return text
        packed = json.dumps({PACKED: _pack(text)})
        if len(packed) <= MAX_RESULT_BYTES:
            return packed
        raise ValueError(f"stage result of {len(packed)} bytes exceeds {MAX_RESULT_BYTES}")

    def to_wire(self) -> dict[str, Any]:
        """JSON form without what is unset, so that it stays small."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class StageFailure(ApiModel):
    """What a stage program writes instead of a result when it ends with REFUSED or WAITING."""

    failure: Reason
    message: Annotated[str, StringConstraints(max_length=1024)]
    """What is wrong and what to do, in one line."""


def _pack(text: str) -> str:
    """Compressed, in the 85 letters that JSON takes as they are (RFC 1924)."""
    return base64.b85encode(zlib.compress(text.encode(), level=9)).decode()


def _unpack(packed: str) -> str:
    return zlib.decompress(base64.b85decode(packed)).decode()


def parse_outcome(text: str) -> StageResult | StageFailure | None:
    """A termination message; None when it is empty or no such document."""
    try:
        document = json.loads(text)
        if PACKED in document:
            document = json.loads(_unpack(document[PACKED]))
        if "failure" in document:
            return StageFailure.model_validate(document)
        return StageResult.model_validate(document)
    except (ValueError, TypeError, AttributeError, zlib.error):
        return None


class Progress(ApiModel):
    """One line on stdout: how far the stage is. The operator reads the last of them."""

    done: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]
    unit: str
    eta_seconds: int | None = None
    message: str = ""

    def to_line(self) -> str:
        """The line, recognised by its first key."""
        return json.dumps({"progress": self.to_json()}, separators=(",", ":"))

    @staticmethod
    def from_line(line: str) -> "Progress | None":
        """The progress in a log line, or None."""
        if not line.startswith('{"progress"'):
            return None
        try:
            return Progress.model_validate(json.loads(line)["progress"])
        except (ValueError, KeyError):
            return None


StageRequest.model_rebuild()
StageResult.model_rebuild()
