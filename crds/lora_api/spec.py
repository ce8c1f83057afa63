"""`spec` of a LoRADeployment: the one source of the CRD's schema, its docs and the parsers.

Every field here is implemented. Defaults stand on fields of objects only, never on list items or
union members (they would drift under GitOps). There are no floats: percent and decimal strings,
durations and quantities.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from lora_api.base import (
    ApiModel,
    Decimal,
    Duration,
    ObjectName,
    Percent,
    Token,
    atomic,
    list_map,
    rule,
    rules,
)
from lora_api.connections import Connection
from lora_api.gatespec import Gates, Override
from lora_api.podspec import JobCache, ModelVolume, Scheduling
from lora_api.provenance import Provenance
from lora_api.quantization import Awq as Awq
from lora_api.quantization import Calibration as Calibration
from lora_api.quantization import Candidate as Candidate
from lora_api.quantization import CandidateGptq as CandidateGptq
from lora_api.quantization import Gptq as Gptq
from lora_api.quantization import Quantization as Quantization
from lora_api.quantization import QuantizationMethod as QuantizationMethod
from lora_api.runtimes import RESERVED_FLAGS, Runtime, reserved_flag_in
from lora_api.scoring import Scorer
from lora_api.sourcespec import ListedAdapter as ListedAdapter
from lora_api.sourcespec import ListedSource as ListedSource
from lora_api.sourcespec import RecordFormat as RecordFormat
from lora_api.sourcespec import Source as Source
from lora_api.strategy import Strategy

RESERVED_MESSAGE = (
    "this flag is set by the operator; remove it from serving.args (reserved: model, adapters, "
    "remote code, prefix cache, host and port)"
)


class LossOn(StrEnum):
    """Which tokens of a record count."""

    COMPLETIONS = "Completions"
    ALL = "All"


class TaskSet(Source):
    """Held-out records of what the adapter is for."""

    format: RecordFormat = RecordFormat.AUTO
    loss_on: LossOn = LossOn.COMPLETIONS
    """Completions, wherever the data has them; plain text counts as a whole."""
    scorer: Scorer | None = None
    """Needs records with a prompt, and gives the metric PassRate and its gate."""


class GeneralSet(Source):
    """Records that show whether the rest of the model is intact."""

    format: RecordFormat = RecordFormat.AUTO


class Evaluation(ApiModel):
    """Quality, measured in one runtime for all conditions."""

    task: TaskSet
    general: GeneralSet | None = None
    context_length: Annotated[int, Field(ge=16, le=131_072)] = 2048


class Workload(ApiModel):
    """The requests of the benchmark: fixed lengths, so that every condition does equal work."""

    input_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    output_tokens: Annotated[int, Field(ge=2, le=131_072)] = 128
    concurrency: Annotated[
        list[Annotated[int, Field(ge=1, le=1024)]] | None,
        Field(min_length=1, max_length=8, json_schema_extra=atomic()),
    ] = None
    """Requests in flight, by default 1; 1 must be among them: the gates look there."""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.concurrency is not None and 1 not in self.concurrency:
            raise ValueError("benchmark.workload.concurrency must contain 1")
        return self


class Benchmark(ApiModel):
    """Speed and memory, measured in the engine that will serve."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.workload) || !has(self.workload.concurrency)"
                " || 1 in self.workload.concurrency",
                "workload.concurrency must contain 1: the gates compare at concurrency 1",
            )
        )
    }

    workload: Workload = Workload()
    precision: Percent = "5%"
    """Half-width of the 95 % interval to reach for every timing metric."""
    max_duration: Duration = "2h"
    rerun: Token = ""
    """Any new value measures again."""


class BaseWeights(StrEnum):
    """What an adapter is added to."""

    ORIGINAL = "Original"
    DEQUANTIZED_NF4 = "DequantizedNF4"


class Merge(ApiModel):
    """How adapters and base become one model."""

    base_weights: BaseWeights = BaseWeights.ORIGINAL
    """`DequantizedNF4` for adapters that QLoRA trained: the linear layers of `baseModel`, which is
    the 16-bit one here too, go through NF4 (blocks of 64, double quantization) first, so that the
    adapter finds the base that it was trained on."""


class ArtifactPlace(ApiModel):
    """The bucket and prefix of the store."""

    uri: Annotated[
        str,
        StringConstraints(pattern=r"^(s3|file)://[^\s]+$", max_length=512),
    ]
    connection: Annotated[str, StringConstraints(max_length=32)] = ""
    keep_releases: Annotated[int, Field(ge=1, le=30)] | None = None
    """So many of the newest releases stay in the bucket, and what serves or is pinned; others go
    when they are 7 days old, with the artifacts that only they need. Unset: nothing is removed."""


class Accelerator(ApiModel):
    """The extended resource that quantize, evaluate, benchmark and serving ask for."""

    resource: Annotated[str, StringConstraints(max_length=253)] = "nvidia.com/gpu"
    """`None` runs on CPUs."""
    product: Annotated[str, StringConstraints(max_length=63)] = ""
    """Hashed into the benchmark and used as node selector `nvidia.com/gpu.product`."""


class ServiceType(StrEnum):
    """Service types of Kubernetes that make sense here."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceTemplate(ApiModel):
    """The Service that clients use."""

    type: ServiceType = ServiceType.CLUSTER_IP
    port: Annotated[int, Field(ge=1, le=65535)] = 8000


class EnvVar(ApiModel):
    """A literal environment variable."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    value: Annotated[str, StringConstraints(max_length=1024)]


class Serving(ApiModel):
    """What serves the quantized model, and how much of it."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                # As `runtimes.reserved_flag_in`; a contract test compares the two.
                "!has(self.args) || self.args.all(a, !a.startsWith('--') || !["
                + ", ".join(f"'{flag}'" for flag in RESERVED_FLAGS)
                + "].exists(f, f.startsWith("
                "a.split(' ')[0].split('=')[0].split('.')[0].replace('_', '-'))))",
                RESERVED_MESSAGE,
            )
        )
    }

    runtime: Runtime = Runtime.VLLM
    image: Annotated[str, StringConstraints(max_length=512)] = ""
    """Unset: pinned at the first run to the runtime's default."""
    accelerator: Accelerator = Accelerator()
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    model_name: Annotated[
        str,
        StringConstraints(
            # Some engines know a model by its folder: no `@`, no `:`, nothing that climbs.
            pattern=r"^([A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)*)?$",
            max_length=128,
        ),
    ] = ""
    """The OpenAI model name; default metadata.name."""
    strategy: Strategy = Strategy()
    args: Annotated[
        list[Annotated[str, StringConstraints(max_length=512)]] | None,
        Field(max_length=64, json_schema_extra=atomic()),
    ] = None
    env: Annotated[
        list[EnvVar] | None, Field(max_length=32, json_schema_extra=list_map("name"))
    ] = None
    service: ServiceTemplate = ServiceTemplate()
    model_volume: ModelVolume | None = None
    """A volume that all pods share; unset: each pod fetches the model into its own `emptyDir`."""
    service_account_name: ObjectName = ""
    scheduling: Scheduling = Scheduling()
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] = 360
    pin: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{8})?$", max_length=8)] = ""
    """A release of this object (`status.releases[].id`) that shall serve; no stage runs while it is
    set. Empty: the newest that passed."""

    @model_validator(mode="after")
    def _no_reserved_flags(self) -> Self:
        flag = reserved_flag_in(self.args or [])
        if flag:
            raise ValueError(f"{flag}: {RESERVED_MESSAGE}")
        return self


class JobStage(StrEnum):
    """Stages whose Jobs can be given their own settings."""

    RESOLVE = "resolve"
    MERGE = "merge"
    QUANTIZE = "quantize"
    EVALUATE = "evaluate"
    BENCHMARK = "benchmark"
    REPORT = "report"
    PUBLISH = "publish"
    VERIFY = "verify"


class JobDefaults(ApiModel):
    """Settings of all stage Jobs."""

    scheduling: Scheduling = Scheduling()
    service_account_name: ObjectName = ""
    labels: Annotated[dict[str, Token] | None, Field(max_length=16)] = None
    annotations: Annotated[dict[str, Token] | None, Field(max_length=16)] = None
    timeout: Duration = "4h"
    """From container start, so a queue is never a failure."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    cache: JobCache | None = None
    """A volume that Jobs share; unset: each Job fetches what it needs."""


class StageJob(ApiModel):
    """Settings of one stage's Jobs; maps merge into the defaults, lists replace."""

    name: JobStage
    scheduling: Scheduling | None = None
    timeout: Duration | None = None
    retries: Annotated[int, Field(ge=0, le=10)] | None = None


class Jobs(ApiModel):
    """Settings of the stage Jobs."""

    defaults: JobDefaults = JobDefaults()
    stages: Annotated[
        list[StageJob] | None, Field(max_length=8, json_schema_extra=list_map("name"))
    ] = None

    def for_stage(self, stage: str) -> tuple[Scheduling, str, int]:
        """Scheduling, timeout and retries of a stage."""
        own = next((s for s in self.stages or [] if s.name == stage), None)
        scheduling = self.defaults.scheduling
        if own is None:
            return scheduling, self.defaults.timeout, self.defaults.retries
        return (
            scheduling.overlaid_with(own.scheduling) if own.scheduling else scheduling,
            own.timeout or self.defaults.timeout,
            self.defaults.retries if own.retries is None else own.retries,
        )


UNMEASURED_CONCURRENCY = (
    "gates.custom names a concurrency that is not in benchmark.workload.concurrency"
)


class ObjectSpec(ApiModel):
    """A LoRA adapter and its base, and what they shall become."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.connections) || self.profile != ''"
                " || !has(self.quantization.calibration)"
                " || self.quantization.calibration.sources.all(s,"
                " !has(s.connection) || s.connection == '' ||"
                " self.connections.exists(c, c.name == s.connection))",
                "quantization.calibration.sources names a connection that is not in connections",
            ),
            rule(
                "!has(self.quantization.calibration) || self.quantization.calibration.sources"
                ".all(s, s.uri != self.evaluation.task.uri)",
                "the calibration set must not be the evaluation set: its texts were seen",
            ),
            rule(
                "!has(self.evaluation.general) || !has(self.quantization.calibration)"
                " || self.quantization.calibration.sources.all(s,"
                " s.uri != self.evaluation.general.uri)",
                "the calibration set must not be the general evaluation set: its texts were seen",
            ),
            rule(
                "has(self.artifact) || self.profile != ''",
                "artifact is missing: give the bucket, or a profile that gives one",
            ),
            rule(
                "!has(self.gates) || !has(self.gates.custom) || self.gates.custom.all(g,"
                " !has(g.concurrency) || g.concurrency == 1 || (has(self.benchmark)"
                " && has(self.benchmark.workload) && has(self.benchmark.workload.concurrency)"
                " && g.concurrency in self.benchmark.workload.concurrency))",
                UNMEASURED_CONCURRENCY,
            ),
        )
    }

    profile: Annotated[
        str, StringConstraints(pattern=r"^([a-z]([-a-z0-9]{0,30}[a-z0-9])?)?$", max_length=32)
    ] = ""
    """Named defaults of the platform team (the chart's `profiles`). They fill what is unset here
    and has no default, and their gates are floors."""
    suspend: bool = False
    """Running stages end and free their accelerators, no new one starts, what serves stays."""
    refresh: Token = ""
    """Any new value resolves branches and prefixes again."""
    connections: Annotated[
        list[Connection] | None, Field(max_length=16, json_schema_extra=list_map("name"))
    ] = None
    base_model: Source
    adapters: Annotated[
        list[ListedAdapter], Field(min_length=1, max_length=8, json_schema_extra=atomic())
    ]
    merge: Merge = Merge()
    quantization: Quantization
    evaluation: Evaluation
    benchmark: Benchmark = Benchmark()
    gates: Gates = Gates()
    overrides: Annotated[
        list[Override] | None, Field(max_length=32, json_schema_extra=atomic())
    ] = None
    artifact: ArtifactPlace | None = None
    """Only an object whose profile gives it may leave it out."""
    provenance: Provenance | None = None
    """Signed statements of releases; the `publicKeys` of a profile are a floor."""
    serving: Serving = Serving()
    jobs: Jobs = Jobs()

    @model_validator(mode="after")
    def _calibration_is_not_evaluation(self) -> Self:
        calibration = self.quantization.calibration
        seen = {s.uri for s in calibration.sources} if calibration else set()
        general = self.evaluation.general
        if self.evaluation.task.uri in seen or (general and general.uri in seen):
            raise ValueError(
                "the calibration set must not be an evaluation set: its texts were seen"
            )
        return self

    @model_validator(mode="after")
    def _gates_look_at_what_is_measured(self) -> Self:
        measured = {1, *(self.benchmark.workload.concurrency or ())}
        if any(gate.concurrency not in measured for gate in self.gates.custom or ()):
            raise ValueError(UNMEASURED_CONCURRENCY)
        return self

    def connection(self, name: str) -> Connection | None:
        """The connection of that name, or None."""
        return next((c for c in self.connections or [] if c.name == name), None)


class Spec(ObjectSpec):
    """All that a run needs: an object's spec with what its profile gives filled in."""

    artifact: ArtifactPlace


def parse_spec(raw: dict[str, Any]) -> Spec:
    """A whole spec from JSON. Unknown fields are refused, unlike on the API server."""
    return Spec.model_validate(raw)


__all__ = ["Decimal", "ObjectSpec", "Spec", "parse_spec"]
