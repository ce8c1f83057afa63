"""`report.json`: what a judged run is reported as, for programs and for `report.html`.

Its schema is written to docs/report.schema.json. `SCHEMA_VERSION` is raised when a field changes
its meaning or goes; new fields may come at any time, so readers ignore what they do not know.
All numbers that were measured are decimal strings; lengths of plots are floats.
"""

from typing import Any, Literal

from lora_api.base import ApiModel
from lora_api.gates import QUANTIZED, GateResult, Verdict

SCHEMA_VERSION: Literal[2] = 2


class ReportRow(ApiModel):
    """One metric of the four conditions."""

    label: str
    cells: list[str]
    """A text for each of `conditions`; `-` for what was not measured."""
    change: str
    """Quantized against base, e.g. `-64.6%`."""
    interval: str
    """95 %, of the change; empty for what is exact or has none."""
    against_base: list[str] = []
    """For each of `conditions` its change against base with the interval, where one is known."""


class Part(ApiModel):
    """One part of the attribution, in nats per token; gain and top token's agreement are shares."""

    name: Literal[
        "adapterGain", "mergeLoss", "quantizationLoss", "gainRetained",
        "mergeDivergence", "adapterDivergence", "quantizationDivergence", "topTokenAgreement",
    ]  # fmt: skip
    value: str
    lower: str = ""
    upper: str = ""
    """95 %; both empty when there was too little to make an interval of."""


class Fact(ApiModel):
    """A thing and what is said of it."""

    name: str
    text: str


class Formula(ApiModel):
    """How a metric comes from what was seen."""

    metric: str
    unit: str
    formula: str


class CandidateRow(ApiModel):
    """One recipe that was tried."""

    name: str
    perplexity: str = ""
    """On the task set."""
    weights_bytes: str = ""
    digest: str = ""
    chosen: bool = False
    """It is the one that was judged."""
    served: str = QUANTIZED
    """The condition that it would serve."""


class PairedDifferences(ApiModel):
    """Two conditions on the documents of one set: NLL of the first minus that of the second."""

    evaluation_set: str
    condition: str
    against: str
    nats_per_token: list[float]
    """One for each document, smallest first; at most `MAX_POINTS`, evenly drawn when thinned."""
    documents: int
    mean: float
    """Over all tokens: the difference of the two mean NLLs, not the mean of the list."""
    lower: float | None = None
    upper: float | None = None


class Distribution(ApiModel):
    """One timing of all requests of a condition, as its percentiles 0, 1, ... 100."""

    condition: str
    concurrency: int
    metric: Literal["TimeToFirstToken", "TimePerOutputToken"]
    requests: int
    percentiles_ms: list[float]


class Comparison(ApiModel):
    """A timing metric of one condition against another, over paired blocks."""

    metric: str
    condition: str
    against: str
    change: str
    interval: str
    """95 %; says so when there is none."""
    blocks: int
    ratio: float
    lower: float | None = None
    upper: float | None = None


class Claim(ApiModel):
    """What people say of merging, and what the paired blocks say to it. No gate looks at it."""

    name: Literal["mergedIsAsFast", "unmergedIsSlower"]
    statement: str
    metric: str
    verdict: Literal["Supported", "Refuted", "Undecided"]
    change: str = ""
    """Against base."""
    interval: str = ""
    """95 %, of the change; empty for fewer than 2 blocks."""
    blocks: int = 0
    message: str = ""
    """What is missing when it is undecided."""


class ProcessState(ApiModel):
    """What the machine did while one engine process was measured."""

    block: int
    condition: str
    again: bool
    load_average: str
    """Over one minute."""
    steal_share: str
    """Of all cores' time that the hypervisor gave to others."""
    foreign_share: str
    """Of all cores' time that other processes used."""
    accelerators: list[str]
    """Each device's clocks and heat."""
    disturbed: str
    """Why it is not to be trusted; empty when it is."""
    dropped: bool
    """Its block was measured anew, and it is in no number."""


class OpenLoopRow(ApiModel):
    """One condition in the open loop; times count from a request's arrival."""

    condition: str
    requests: int
    unfinished: int
    """Cut off at the end; they count as slower than all others."""
    quantiles_ms: dict[str, list[float | None]]
    """TimeToFirstToken, TimePerOutputToken, RequestLatency: the quantiles of `quantiles`; none
    where it lies among what is unfinished."""
    good_per_second: float
    """Goodput: requests that met the objectives, over first arrival to last token."""
    good_share: float
    """The same of all that came."""


class OpenLoop(ApiModel):
    """Requests that came at random moments, the same for every condition. No gate looks at it."""

    skipped: str = ""
    """Why it was not measured; then nothing else is set."""
    rate_per_second: float = 0.0
    rate_share: float = 0.0
    """Of base's requests per second in the closed loop at `concurrency`."""
    concurrency: int = 0
    seconds: float = 0.0
    """From the start to the last arrival."""
    objectives: str = ""
    quantiles: list[int] = []
    """In percent."""
    rows: list[OpenLoopRow] = []
    missing: list[Fact] = []
    """Conditions without a valid run, and why."""


class SpeedRecord(ApiModel):
    """How speed was measured, and what of it was not."""

    processes: int
    blocks: int
    workload: list[Fact]
    prompts: str
    """Digest of the token ids that every condition was given."""
    comparisons: list[Comparison]
    """Quantized against base, and base against itself where that was measured."""
    distributions: list[Distribution]
    missing: list[Fact]
    """What was not measured, and why."""
    commands: list[Fact]
    repeatable_answers: int
    open_loop: OpenLoop | None = None
    """None in records of before it was measured."""
    claims: list[Claim] = []
    states: list[ProcessState] = []
    """Of every engine process of the blocks."""


class StageRecord(ApiModel):
    """One finished stage."""

    stage: str
    candidate: str
    input_hash: str
    parameters: dict[str, Any]
    parents: dict[str, str]
    digest: str
    message: str
    notes: dict[str, str]
    seconds: int
    accelerator_seconds: int = 0
    """Accelerators times seconds that it held them, when it ran; 0 on CPUs."""


class SourceRecord(ApiModel):
    """A source and what it was pinned to."""

    name: str
    uri: str
    revision: str = ""
    digest: str


class Report(ApiModel):
    """A judged run."""

    schema_version: Literal[2] = SCHEMA_VERSION
    name: str
    """`namespace/name` of the object."""
    run_id: str
    verdict: Verdict
    sentence: str
    """Verdict and reason, for people."""
    candidate: str
    artifact: str
    """Digest of the model that would serve; empty when there is none."""
    conditions: list[str]
    table: list[ReportRow]
    attribution: list[Part]
    attribution_line: str
    gates: list[GateResult]
    caveats: list[str]
    candidates: list[CandidateRow]
    paired: list[PairedDifferences]
    protocol: list[Fact]
    """How it was measured, in sentences."""
    formulas: list[Formula]
    environment: list[Fact]
    """On what it was measured."""
    speed: SpeedRecord | None = None
    """None when speed was not measured."""
    measurements: dict[str, dict[str, str]]
    """Every row, as judged: see docs/report.md."""
    stages: list[StageRecord]
    sources: list[SourceRecord]
    spec: dict[str, Any]
    served: str = QUANTIZED
    """The condition that would serve: quantized, or merged for method None."""
