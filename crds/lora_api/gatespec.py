"""`spec.gates`: the limits that a model must keep to serve; `gates` judges by them."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from lora_api.base import ApiModel, Decimal, Digest, Percent, ShortName, list_map, rule, rules


class GateMode(StrEnum):
    """Whether a gate decides, is only reported, or is left out."""

    ENFORCE = "Enforce"
    DRY_RUN = "DryRun"
    DISABLED = "Disabled"


class IncreaseGate(ApiModel):
    """Passes while the metric rises by no more than this."""

    max_increase: Percent
    mode: GateMode = GateMode.ENFORCE


class DecreaseGate(ApiModel):
    """Passes while the metric falls by no more than this."""

    max_decrease: Percent
    mode: GateMode = GateMode.ENFORCE


class MinDecreaseGate(ApiModel):
    """Passes when the metric falls by at least this."""

    min_decrease: Percent
    mode: GateMode = GateMode.ENFORCE


class MinGate(ApiModel):
    """Passes when the metric is at least this."""

    min: Percent
    mode: GateMode = GateMode.ENFORCE


class MaxGate(ApiModel):
    """Passes when the metric is at most this."""

    max: Percent
    mode: GateMode = GateMode.ENFORCE


class TaskQualityGate(IncreaseGate):
    """Task perplexity, quantized against merged; NotApplicable for method None."""

    max_increase: Percent = "5%"


class GeneralQualityGate(IncreaseGate):
    """General perplexity, quantized against merged; NotApplicable for method None."""

    max_increase: Percent = "5%"


class GainRetainedGate(MinGate):
    """(NLL base - NLL quantized) / (NLL base - NLL merged) on the task set.

    For method None it asks only whether merged is better than base.
    """

    min: Percent = "80%"


class PassRateGate(DecreaseGate):
    """Share of the task's records that are answered right, in points, quantized against merged.

    NotApplicable for method None.
    """

    max_decrease: Percent = "2%"


class FallbacksGate(MaxGate):
    """Share of the quantized modules that GPTQ rounded to nearest, without calibration; exact.

    NotApplicable for AWQ, which does not tell it, and for method None.
    """

    max: Percent = "0%"


class DampingRaisedGate(MaxGate):
    """Share of the quantized modules that GPTQ could solve only with a higher damping; exact.

    NotApplicable for AWQ, which has no damping, and for method None.
    """

    max: Percent = "0%"
    mode: GateMode = GateMode.DRY_RUN


class WeightsSizeGate(MinDecreaseGate):
    """Weight bytes, quantized against base; exact. NotApplicable for method None."""

    min_decrease: Percent = "20%"


class DecodeSpeedGate(DecreaseGate):
    """Output tokens per second of a request at concurrency 1, what would serve against base."""

    max_decrease: Percent = "5%"


class FirstTokenGate(IncreaseGate):
    """Median time to first token at concurrency 1, what would serve against base."""

    max_increase: Percent = "25%"


class GateMetric(StrEnum):
    """What a gate of one's own can look at; times are medians over requests."""

    PERPLEXITY = "Perplexity"
    PASS_RATE = "PassRate"  # noqa: S105 - a metric
    TIME_TO_FIRST_TOKEN = "TimeToFirstToken"  # noqa: S105 - a metric
    TIME_PER_OUTPUT_TOKEN = "TimePerOutputToken"  # noqa: S105 - a metric
    OUTPUT_TOKENS_PER_SECOND = "OutputTokensPerSecond"
    WEIGHTS_BYTES = "WeightsBytes"
    PEAK_MEMORY_BYTES = "PeakMemoryBytes"


class Against(StrEnum):
    """What the quantized model is compared with."""

    BASE = "Base"
    DYNAMIC = "Dynamic"
    MERGED = "Merged"


class SetName(StrEnum):
    """An evaluation set."""

    TASK = "task"
    GENERAL = "general"


QUALITY_METRICS = (GateMetric.PERPLEXITY, GateMetric.PASS_RATE)
TIMING_METRICS = (
    GateMetric.TIME_TO_FIRST_TOKEN,
    GateMetric.TIME_PER_OUTPUT_TOKEN,
    GateMetric.OUTPUT_TOKENS_PER_SECOND,
)
ONE_LIMIT = "give exactly one of min, max, maxIncrease, maxDecrease, minDecrease"
AGAINST_OR_NOT = "maxIncrease, maxDecrease and minDecrease need against, min and max have none"
QUALITY_AGAINST = "Perplexity and PassRate are judged against Merged only"
TIMING_AGAINST = (
    "speed is judged against Base only: Merged and Dynamic are measured in a single block"
)


def _among(metrics: tuple[GateMetric, ...]) -> str:
    return "[" + ", ".join(f"'{metric.value}'" for metric in metrics) + "]"


class CustomGate(ApiModel):
    """A gate of one's own on the quantized model: one metric, one limit.

    A percentage is a change against another condition (of PassRate: points), a plain number is in
    the metric's unit: ms, output tokens/s, bytes.
    """

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "[has(self.min), has(self.max), has(self.maxIncrease), has(self.maxDecrease),"
                " has(self.minDecrease)].filter(x, x).size() == 1",
                ONE_LIMIT,
            ),
            rule("has(self.against) != (has(self.min) || has(self.max))", AGAINST_OR_NOT),
            rule(
                f"!(self.metric in {_among(QUALITY_METRICS)})"
                " || (has(self.against) && self.against == 'Merged')",
                QUALITY_AGAINST,
            ),
            rule(
                f"!(self.metric in {_among(TIMING_METRICS)})"
                " || !has(self.against) || self.against == 'Base'",
                TIMING_AGAINST,
            ),
        )
    }

    name: ShortName
    metric: GateMetric
    set: SetName = SetName.TASK
    """Of Perplexity."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 1
    """Of timing metrics; one of `benchmark.workload.concurrency`."""
    against: Against | None = None
    min: Decimal | None = None
    max: Decimal | None = None
    max_increase: Percent | None = None
    max_decrease: Percent | None = None
    min_decrease: Percent | None = None
    mode: GateMode = GateMode.ENFORCE

    @model_validator(mode="after")
    def _is_one_question(self) -> Self:
        plain = [self.min, self.max]
        given = [x for x in (*plain, self.max_increase, self.max_decrease, self.min_decrease) if x]
        if len(given) != 1:
            raise ValueError(ONE_LIMIT)
        if (self.against is None) is not any(plain):
            raise ValueError(AGAINST_OR_NOT)
        if self.metric in QUALITY_METRICS and self.against is not Against.MERGED:
            raise ValueError(QUALITY_AGAINST)
        if self.metric in TIMING_METRICS and self.against not in (None, Against.BASE):
            raise ValueError(TIMING_AGAINST)
        return self


class Gates(ApiModel):
    """What must hold before a model serves."""

    task_quality: TaskQualityGate = TaskQualityGate()
    gain_retained: GainRetainedGate = GainRetainedGate()
    general_quality: GeneralQualityGate = GeneralQualityGate()
    pass_rate: PassRateGate = PassRateGate()
    fallbacks: FallbacksGate = FallbacksGate()
    damping_raised: DampingRaisedGate = DampingRaisedGate()
    weights_size: WeightsSizeGate = WeightsSizeGate()
    decode_speed: DecodeSpeedGate = DecodeSpeedGate()
    first_token: FirstTokenGate = FirstTokenGate()
    custom: Annotated[
        list[CustomGate] | None, Field(max_length=16, json_schema_extra=list_map("name"))
    ] = None


class GateName(StrEnum):
    """The gates of a fixed meaning by name."""

    TASK_QUALITY = "taskQuality"
    GAIN_RETAINED = "gainRetained"
    GENERAL_QUALITY = "generalQuality"
    PASS_RATE = "passRate"  # noqa: S105 - a gate
    FALLBACKS = "fallbacks"
    DAMPING_RAISED = "dampingRaised"
    WEIGHTS_SIZE = "weightsSize"
    DECODE_SPEED = "decodeSpeed"
    FIRST_TOKEN = "firstToken"  # noqa: S105 - a gate


class Override(ApiModel):
    """An accepted exception: this gate's Failed or Inconclusive does not count for this artifact.

    An Error is never accepted: a number that is missing vouches for nothing. Another artifact is
    judged without it. It stands in the verdict's record beside the release.
    """

    digest: Digest
    """Of the artifact, `status.artifact.digest`."""
    gate: GateName
    reason: Annotated[str, StringConstraints(min_length=1, max_length=512)]
