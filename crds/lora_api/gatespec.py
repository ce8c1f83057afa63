"""`spec.gates`: the limits that a model must keep to serve; `gates` judges by them."""

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from lora_api.base import ApiModel, Digest, Percent


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


class WeightsSizeGate(MinDecreaseGate):
    """Weight bytes, quantized against base; exact. NotApplicable for method None."""

    min_decrease: Percent = "20%"


class DecodeSpeedGate(DecreaseGate):
    """Output tokens per second of a request at concurrency 1, what would serve against base."""

    max_decrease: Percent = "5%"


class FirstTokenGate(IncreaseGate):
    """Median time to first token at concurrency 1, what would serve against base."""

    max_increase: Percent = "25%"


class Gates(ApiModel):
    """What must hold before a model serves."""

    task_quality: TaskQualityGate = TaskQualityGate()
    gain_retained: GainRetainedGate = GainRetainedGate()
    general_quality: GeneralQualityGate = GeneralQualityGate()
    pass_rate: PassRateGate = PassRateGate()
    weights_size: WeightsSizeGate = WeightsSizeGate()
    decode_speed: DecodeSpeedGate = DecodeSpeedGate()
    first_token: FirstTokenGate = FirstTokenGate()


class GateName(StrEnum):
    """The gates by name."""

    TASK_QUALITY = "taskQuality"
    GAIN_RETAINED = "gainRetained"
    GENERAL_QUALITY = "generalQuality"
    PASS_RATE = "passRate"  # noqa: S105 - a gate
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
