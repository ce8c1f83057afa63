"""`status` of a LoRADeployment: a cache of what the store and the cluster say.

Nothing reads `phase` or `summary` but people. Lists are capped; logs and reports are referred to.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from lora_api.base import ApiModel, atomic, list_map
from lora_api.conditions import Condition
from lora_api.gates import Verdict
from lora_api.gatespec import GateMode

Word = Annotated[str, StringConstraints(max_length=128)]
Text = Annotated[str, StringConstraints(max_length=1024)]
Time = Annotated[str, StringConstraints(max_length=32)]
MAX_RELEASES = 32
"""In `status.releases`; more than `artifact.keepReleases` may ask for."""


class Phase(StrEnum):
    """Where the object is, in one word for people."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    WAITING = "Waiting"
    RESOLVING = "Resolving"
    MERGING = "Merging"
    QUANTIZING = "Quantizing"
    EVALUATING = "Evaluating"
    BENCHMARKING = "Benchmarking"
    PUBLISHING = "Publishing"
    ROLLING_OUT = "RollingOut"
    VERIFYING = "Verifying"
    SERVING = "Serving"
    REJECTED = "Rejected"
    STALLED = "Stalled"


class Summary(ApiModel):
    """What `kubectl get` prints."""

    gates: Word = ""
    quality: Word = ""
    size: Word = ""
    speed: Word = ""
    release: Word = ""
    reason: Word = ""
    """Why it is not ready, one word."""


class ProfileStatus(ApiModel):
    """The profile that this look was made with."""

    name: Word
    digest: Word
    """Of its content; another one is looked at like an edited spec."""


class PinStatus(ApiModel):
    """What a source was resolved to; mirror of the store's pin."""

    source: Word
    uri: Annotated[str, StringConstraints(max_length=512)]
    revision: Word = ""
    digest: Word


class RunStatus(ApiModel):
    """The run that the spec asks for."""

    id: Word
    candidate: Word = ""
    started_at: Time = ""
    """When its sources began to be resolved, or when a run that had failed was tried again."""
    completed_at: Time = ""
    """When it first served, or could not go on by itself."""
    accelerator_seconds: int = 0


class StageState(StrEnum):
    """One stage's state."""

    PENDING = "Pending"
    RUNNING = "Running"
    WAITING = "Waiting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ProgressStatus(ApiModel):
    """How far a running stage is."""

    done: int
    total: int
    unit: Word
    eta_seconds: int | None = None


class StageStatus(ApiModel):
    """One stage of the run. With its candidate it is unique in the list."""

    name: Word
    candidate: Word = ""
    state: StageState
    job: Word = ""
    attempt: int = 0
    """Attempts that failed and were tried again."""
    input_hash: Word = ""
    digest: Word = ""
    reused: bool = False
    """The result was there already; no Job ran for this object."""
    started_at: Time = ""
    completed_at: Time = ""
    accelerator_seconds: int = 0
    next_try_at: Time = ""
    progress: ProgressStatus | None = None
    reason: Word = ""
    """Why it failed or waits; kept while it is tried again."""
    message: Text = ""
    measurements: Annotated[dict[str, dict[str, Word]] | None, Field(max_length=64)] = None
    """What quantize, evaluate and benchmark found, by metric and condition."""


class GateStatus(ApiModel):
    """One judged gate."""

    name: Word
    observed: Word = ""
    interval: Word = ""
    """95 %, e.g. `[+0.8%, +1.4%]`; empty for what is exact."""
    limit: Word
    mode: GateMode
    verdict: Verdict
    message: Text = ""


class ResultRow(ApiModel):
    """One metric of the four conditions."""

    metric: Word
    base: Word = ""
    dynamic: Word = ""
    merged: Word = ""
    quantized: Word = ""


class BenchmarkStatus(ApiModel):
    """What was measured and decided."""

    verdict: Verdict
    results: Annotated[list[ResultRow], Field(max_length=64, json_schema_extra=atomic())] = []
    gates: Annotated[list[GateStatus], Field(max_length=64, json_schema_extra=atomic())] = []
    report_uri: Annotated[str, StringConstraints(max_length=1024)] = ""


class ArtifactStatus(ApiModel):
    """The quantized model of the current run."""

    uri: Annotated[str, StringConstraints(max_length=1024)]
    digest: Word


class ServingStatus(ApiModel):
    """What the Service selects now; read from it, never from here."""

    release: Word = ""
    digest: Word = ""
    candidate: Word = ""
    """Release that is being brought up."""
    url: Annotated[str, StringConstraints(max_length=512)] = ""
    replicas: int = 0
    ready_replicas: int = 0
    selector: Annotated[str, StringConstraints(max_length=512)] = ""
    """Of the pods that serve, for autoscalers (`/scale`)."""
    image: Annotated[str, StringConstraints(max_length=512)] = ""


class ReleaseStatus(ApiModel):
    """One release, newest first; the truth is in the store."""

    id: Word
    number: int
    digest: Word
    verdict: Verdict
    created_at: Time


class Status(ApiModel):
    """What is, and what to do next."""

    observed_generation: int = -1
    """The newest generation that was judged; -1 before the first: no tool takes it for current."""
    phase: Phase = Phase.PENDING
    summary: Summary = Summary()
    conditions: Annotated[
        list[Condition], Field(max_length=16, json_schema_extra=list_map("type"))
    ] = []
    last_handled_retry: Word = ""
    profile: ProfileStatus | None = None
    pins: Annotated[list[PinStatus], Field(max_length=40, json_schema_extra=atomic())] = []
    image: Annotated[str, StringConstraints(max_length=512)] = ""
    """Serving image that this object was pinned to."""
    run: RunStatus | None = None
    stages: Annotated[list[StageStatus], Field(max_length=64, json_schema_extra=atomic())] = []
    benchmark: BenchmarkStatus | None = None
    artifact: ArtifactStatus | None = None
    serving: ServingStatus | None = None
    verified: Annotated[list[Word], Field(max_length=8, json_schema_extra=atomic())] = []
    """`<release>/<Deployment uid>` of passed verifications, newest first."""
    releases: Annotated[
        list[ReleaseStatus], Field(max_length=MAX_RELEASES, json_schema_extra=atomic())
    ] = []
