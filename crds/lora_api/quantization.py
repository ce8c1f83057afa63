"""How weights go to low bits: the recipes of a spec, and the texts they are calibrated on."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from lora_api.base import ApiModel, ShortName, atomic, list_map, rule, rules
from lora_api.sourcespec import ListedCalibration, RecordFormat

CANDIDATE_MESSAGE = (
    "a candidate of method GPTQ needs gptq, one of AWQ needs awq, and none has another's parameters"
)
CALIBRATION_MESSAGE = "calibration is missing: GPTQ and AWQ need texts; only method None needs none"
WEIGHTS_MESSAGE = "give every calibration source a weight, or none"
NO_WEIGHT_MESSAGE = "a calibration source of weight 0 gives no sample: leave it out"
ENGINES_LOAD = "bits must be 4 and groupSize one of 32, 64, 128: engines load no other"


class QuantizationMethod(StrEnum):
    """How weights go to low bits; None leaves them, and the merged model is what serves."""

    GPTQ = "GPTQ"
    AWQ = "AWQ"
    NONE = "None"


class Gptq(ApiModel):
    """GPTQ's parameters; the enums admit what the serving engines load."""

    bits: Annotated[int, Field(json_schema_extra={"enum": [4]})] = 4
    group_size: Annotated[int, Field(json_schema_extra={"enum": [32, 64, 128]})] = 128
    """Consecutive input columns that share one scale; smaller is better and larger on disk."""
    damping: Annotated[str, StringConstraints(pattern=r"^0\.[0-9]{1,4}$", max_length=6)] = "0.05"
    """GPTQ's `damp_percent`, a fraction of the Hessian's mean diagonal."""

    @model_validator(mode="after")
    def _legal(self) -> Self:
        if self.bits != 4 or self.group_size not in (32, 64, 128):
            raise ValueError(ENGINES_LOAD)
        return self


class Awq(ApiModel):
    """AWQ's parameters: asymmetric codes, weights scaled by what calibration makes loud."""

    bits: Annotated[int, Field(json_schema_extra={"enum": [4]})] = 4
    group_size: Annotated[int, Field(json_schema_extra={"enum": [32, 64, 128]})] = 128
    """Consecutive input columns that share one scale; smaller is better and larger on disk."""

    @model_validator(mode="after")
    def _legal(self) -> Self:
        if self.bits != 4 or self.group_size not in (32, 64, 128):
            raise ValueError(ENGINES_LOAD)
        return self


class CandidateGptq(ApiModel):
    """GPTQ's parameters in a candidate: complete, without defaults."""

    bits: Annotated[int, Field(json_schema_extra={"enum": [4]})]
    group_size: Annotated[int, Field(json_schema_extra={"enum": [32, 64, 128]})]
    damping: Annotated[str, StringConstraints(pattern=r"^0\.[0-9]{1,4}$")] | None = None


class CandidateAwq(ApiModel):
    """AWQ's parameters in a candidate: complete, without defaults."""

    bits: Annotated[int, Field(json_schema_extra={"enum": [4]})]
    group_size: Annotated[int, Field(json_schema_extra={"enum": [32, 64, 128]})]


class Candidate(ApiModel):
    """A complete recipe, tried when the one before it fails a quality gate."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "(self.method == 'GPTQ') == has(self.gptq)"
                " && (self.method == 'AWQ') == has(self.awq)",
                CANDIDATE_MESSAGE,
            ),
        )
    }

    name: ShortName
    method: QuantizationMethod
    gptq: CandidateGptq | None = None
    """Required with method GPTQ, and only there."""
    awq: CandidateAwq | None = None
    """Required with method AWQ, and only there."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs = (self.method is QuantizationMethod.GPTQ, self.method is QuantizationMethod.AWQ)
        if needs != (self.gptq is not None, self.awq is not None):
            raise ValueError(CANDIDATE_MESSAGE)
        return self


class Calibration(ApiModel):
    """The texts whose activations GPTQ observes; disjoint from the evaluation sets."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "self.sources.all(s, has(s.weight)) || !self.sources.exists(s, has(s.weight))",
                WEIGHTS_MESSAGE,
            ),
            rule(
                "self.sources.all(s, !has(s.weight) || s.weight.matches('[1-9]'))",
                NO_WEIGHT_MESSAGE,
            ),
        )
    }

    sources: Annotated[
        list[ListedCalibration], Field(min_length=1, max_length=16, json_schema_extra=atomic())
    ]
    format: RecordFormat = RecordFormat.AUTO
    samples: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Rows of `sequenceLength` tokens; fewer tokens than that are refused."""
    sequence_length: Annotated[int, Field(ge=16, le=131_072)] = 2048
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        weights = [s.weight for s in self.sources]
        if None in weights and any(weights):
            raise ValueError(WEIGHTS_MESSAGE)
        if any(weight is not None and not float(weight) for weight in weights):
            raise ValueError(NO_WEIGHT_MESSAGE)
        return self


class Quantization(ApiModel):
    """The primary recipe (candidate `default`), the ones to fall back on, and calibration."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.candidates) || self.candidates.all(c, c.name != 'default')",
                "the name 'default' is taken by the recipe that quantization itself states",
            ),
            rule(
                "has(self.calibration) || (self.method == 'None' && (!has(self.candidates)"
                " || self.candidates.all(c, c.method == 'None')))",
                CALIBRATION_MESSAGE,
            ),
        )
    }

    method: QuantizationMethod = QuantizationMethod.GPTQ
    gptq: Gptq = Gptq()
    """Of method GPTQ; without meaning for another."""
    awq: Awq | None = None
    """Of method AWQ, which has defaults for all of it; without meaning for another."""
    candidates: Annotated[
        list[Candidate] | None, Field(max_length=8, json_schema_extra=list_map("name"))
    ] = None
    """Complete recipes in the order in which they are tried."""
    calibration: Calibration | None = None
    """Required where a recipe is GPTQ or AWQ. Where all are None it may stay, and is neither read
    nor pinned."""

    @property
    def quantizes(self) -> bool:
        """Whether a recipe goes to low bits."""
        methods = (self.method, *(c.method for c in self.candidates or ()))
        return any(method is not QuantizationMethod.NONE for method in methods)

    @property
    def used_calibration(self) -> Calibration | None:
        """The calibration that a recipe reads; None where nothing is quantized."""
        return self.calibration if self.quantizes else None

    @property
    def calibration_sources(self) -> list[ListedCalibration]:
        """Where the calibration texts are; none where nothing is quantized."""
        return self.used_calibration.sources if self.used_calibration else []

    @model_validator(mode="after")
    def _calibrated(self) -> Self:
        if self.quantizes and self.calibration is None:
            raise ValueError(CALIBRATION_MESSAGE)
        return self
