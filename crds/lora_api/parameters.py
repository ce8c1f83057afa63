"""What of the spec decides a stage's output: the hashed parameters of every working stage.

`to_hashed` leaves out values equal to the defaults written *here*. A default here is the value at
the time the field was introduced and never changes afterwards, so that a new field leaves every
stored hash as it was. Golden vectors in the tests hold that.
"""

from typing import Any, Self

from lora_api.base import ApiModel
from lora_api.runtimes import Runtime
from lora_api.scoring import Scorer
from lora_api.spec import (
    Awq,
    BaseWeights,
    GeneralSet,
    Gptq,
    LossOn,
    QuantizationMethod,
    RecordFormat,
    Spec,
)


class Hashed(ApiModel):
    """A model whose JSON is hashed without its defaults."""

    def to_hashed(self) -> dict[str, Any]:
        """JSON form without what equals a default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class MergeParameters(Hashed):
    """How adapters are summed, and what they are added to."""

    weights: tuple[str, ...] = ()
    """Of adapter0, adapter1, ... as decimals without needless zeros; empty where all are 1."""
    base_weights: BaseWeights = BaseWeights.ORIGINAL

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The parameters of a spec; equal numbers give equal parameters, however written."""
        weights = tuple(_plain(adapter.weight or "1") for adapter in spec.adapters)
        return cls(
            weights=weights if set(weights) != {"1"} else (),
            base_weights=spec.merge.base_weights,
        )

    def weight(self, index: int) -> float:
        """The weight of an adapter."""
        return float(self.weights[index]) if self.weights else 1.0


def _plain(decimal: str) -> str:
    """`1.50` as `1.5`, `01` as `1`."""
    whole, _, fraction = decimal.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{fraction}" if fraction else whole


class QuantizeParameters(Hashed):
    """How the merged model is quantized and with what calibration."""

    method: QuantizationMethod = QuantizationMethod.GPTQ
    bits: int
    group_size: int
    damping: str = ""
    """Of GPTQ alone."""
    format: RecordFormat = RecordFormat.AUTO
    samples: int
    sequence_length: int
    seed: int = 0
    weights: tuple[str, ...] = ()
    """Of calibration0, calibration1, ...; empty where none has one."""

    @classmethod
    def of(cls, spec: Spec, recipe: Gptq | Awq) -> Self:
        """The parameters of one recipe; of a spec that quantizes, which has a calibration."""
        calibration = spec.quantization.used_calibration
        assert calibration is not None
        return cls(
            method=method_of(recipe),
            bits=recipe.bits,
            group_size=recipe.group_size,
            damping=recipe.damping if isinstance(recipe, Gptq) else "",
            format=calibration.format,
            samples=calibration.samples,
            sequence_length=calibration.sequence_length,
            seed=calibration.seed,
            weights=tuple(_plain(s.weight) for s in calibration.sources if s.weight),
        )


def method_of(recipe: Gptq | Awq | None) -> QuantizationMethod:
    """The method whose parameters these are."""
    if recipe is None:
        return QuantizationMethod.NONE
    return QuantizationMethod.GPTQ if isinstance(recipe, Gptq) else QuantizationMethod.AWQ


class EvaluateParameters(Hashed):
    """The protocol of the quality measurement; part of every number's key."""

    context_length: int
    task_format: RecordFormat = RecordFormat.AUTO
    loss_on: LossOn = LossOn.COMPLETIONS
    general_format: RecordFormat = RecordFormat.AUTO
    adapter_weights: tuple[str, ...] = ()
    """`MergeParameters.weights`, with which the unmerged adapters are summed too."""
    scorer: Scorer | None = None

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The protocol that the spec asks for."""
        evaluation = spec.evaluation
        general = evaluation.general or GeneralSet(uri="file:///none")
        return cls(
            context_length=evaluation.context_length,
            task_format=evaluation.task.format,
            loss_on=evaluation.task.loss_on,
            general_format=general.format,
            adapter_weights=MergeParameters.of(spec).weights,
            scorer=evaluation.task.scorer,
        )


class BenchmarkParameters(Hashed):
    """The engine, how it is started and the work it is given."""

    runtime: Runtime
    image: str
    args: list[str] = []
    env: dict[str, str] = {}
    accelerator: str
    product: str = ""
    input_tokens: int
    output_tokens: int
    concurrency: list[int]
    precision: str
    rerun: str = ""

    @classmethod
    def of(cls, spec: Spec, image: str) -> Self:
        """What the spec asks to be measured, on the pinned image."""
        serving, workload = spec.serving, spec.benchmark.workload
        return cls(
            runtime=serving.runtime,
            image=image,
            args=list(serving.args or []),
            env={e.name: e.value for e in serving.env or []},
            accelerator=serving.accelerator.resource,
            product=serving.accelerator.product,
            input_tokens=workload.input_tokens,
            output_tokens=workload.output_tokens,
            concurrency=sorted(set(workload.concurrency or [1])),
            precision=spec.benchmark.precision,
            rerun=spec.benchmark.rerun,
        )


class ServingRecipe(Hashed):
    """How a release's pods are started; with the artifact it is the release's identity."""

    runtime: Runtime
    image: str
    args: list[str] = []
    env: dict[str, str] = {}
    accelerator: str
    product: str = ""
    model_name: str

    @classmethod
    def of(cls, spec: Spec, name: str, image: str) -> Self:
        """The recipe of the object `name`."""
        serving = spec.serving
        return cls(
            runtime=serving.runtime,
            image=image,
            args=list(serving.args or []),
            env={e.name: e.value for e in serving.env or []},
            accelerator=serving.accelerator.resource,
            product=serving.accelerator.product,
            model_name=serving.model_name or name,
        )
