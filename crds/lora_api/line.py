"""The line of stages as one pure walk: what is done, what comes next, what was decided.

The operator asks it with the results of its Jobs, `resolve` with the store's action entries, and
the local run with both: all three see the same next step, because it is the same function.

    merge -> (quantize -> evaluate)* -> benchmark -> judge

Quality decides the candidate: the next recipe is tried only when a quality gate that a recipe can
change has Failed. With more than one recipe they are chosen on one half of the evaluation documents
and the chosen one is judged, once, on the other: the best of several is lucky on what chose it.
Speed is measured for the chosen one only, and not at all for one that is rejected on quality: that
would be accelerator time spent on a model that cannot serve.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_api.digests import digest_of, short
from lora_api.estimates import Part
from lora_api.gates import (
    MERGED,
    QUANTIZED,
    Judgement,
    Measurements,
    Verdict,
    accept,
    judge,
    judge_quality,
)
from lora_api.jobcontract import STAGE_VERSIONS, Release, Stage, StageCall, StageResult
from lora_api.parameters import (
    BenchmarkParameters,
    EvaluateParameters,
    MergeParameters,
    QuantizeParameters,
    ServingRecipe,
    method_of,
)
from lora_api.spec import Awq, Gptq, QuantizationMethod, Spec

DEFAULT_CANDIDATE = "default"

OutcomeOf = Callable[[StageCall], StageResult | None]


@dataclass(frozen=True)
class Recipe:
    """One candidate: its name and complete quantization parameters.

    Attributes:
        low_bits: Of GPTQ or AWQ. None for method None: nothing is quantized, and the merged model
            is the candidate.
    """

    name: str
    low_bits: Gptq | Awq | None

    @property
    def served(self) -> str:
        """The condition that would serve."""
        return QUANTIZED if self.low_bits else MERGED

    def identity(self) -> dict[str, Any]:
        """What the run's id knows of it."""
        if isinstance(self.low_bits, Gptq):  # as it was before there were others
            return self.low_bits.to_json()
        own = self.low_bits.to_json() if self.low_bits else {}
        return {"method": method_of(self.low_bits).value, **own}

    def to_hashed(self, spec: Spec) -> dict[str, Any] | None:
        """The hashed parameters of its quantize stage; None where it has no such stage."""
        return QuantizeParameters.of(spec, self.low_bits).to_hashed() if self.low_bits else None


@dataclass(frozen=True)
class Line:
    """How far a run is.

    Attributes:
        done: Finished stages in order, reused or not.
        missing: The next piece of work, None when all is measured.
        candidate: Name of the recipe being tried or chosen.
        served: The condition that this recipe would serve, quantized or merged.
        quality: Judgement of the last evaluated candidate.
        judgement: All gates; None until it can be made.
        release: What may roll out; only with verdict Passed.
    """

    done: tuple[tuple[StageCall, StageResult], ...] = ()
    missing: StageCall | None = None
    candidate: str = DEFAULT_CANDIDATE
    served: str = QUANTIZED
    quality: Judgement | None = None
    judgement: Judgement | None = None
    release: Release | None = None
    measurements: Measurements = field(default_factory=dict)

    @property
    def artifact(self) -> str:
        """Digest of the chosen candidate's model, empty before there is one."""
        return artifact_of(self.done, self.candidate, self.served)


def artifact_of(done: Sequence[tuple[StageCall, StageResult]], candidate: str, served: str) -> str:
    """Digest of a candidate's model among finished stages, empty where it was not made."""
    maker = Stage.QUANTIZE if served == QUANTIZED else Stage.MERGE
    made = [r.digest for c, r in done if c.stage is maker and c.candidate in ("", candidate)]
    return made[-1] if made else ""


def source_names(spec: Spec) -> dict[str, str]:
    """Every source of the spec: name in `parents` -> URI."""
    names = {"base": spec.base_model.uri}
    names |= {f"adapter{i}": a.uri for i, a in enumerate(spec.adapters)}
    calibration = spec.quantization.calibration_sources
    names |= {f"calibration{i}": s.uri for i, s in enumerate(calibration)}
    names["task"] = spec.evaluation.task.uri
    if spec.evaluation.general:
        names["general"] = spec.evaluation.general.uri
    return names


def recipes(spec: Spec) -> Iterator[Recipe]:
    """The candidates in the order in which they are tried."""
    asked = spec.quantization
    default: dict[QuantizationMethod, Gptq | Awq | None] = {
        QuantizationMethod.GPTQ: asked.gptq,
        QuantizationMethod.AWQ: asked.awq or Awq(),
        QuantizationMethod.NONE: None,
    }
    yield Recipe(DEFAULT_CANDIDATE, default[asked.method])
    for candidate in asked.candidates or []:
        if candidate.gptq:
            yield Recipe(candidate.name, Gptq(**candidate.gptq.model_dump(exclude_none=True)))
        elif candidate.awq:
            yield Recipe(candidate.name, Awq(**candidate.awq.model_dump()))
        else:
            yield Recipe(candidate.name, None)


def run_id(spec: Spec, pins: Mapping[str, str], image: str) -> str:
    """Eight hex digits that identify the run's inputs, never the generation."""
    calibration = spec.quantization.used_calibration
    inputs = {
        "pins": dict(pins),
        # Joined later: nothing where all weights are 1, so that older runs keep their ids.
        **({"merge": merge} if (merge := MergeParameters.of(spec).to_hashed()) else {}),
        "recipes": [[r.name, r.identity()] for r in recipes(spec)],
        "calibration": QuantizeParameters.of(spec, Gptq()).to_hashed() if calibration else {},
        "evaluate": EvaluateParameters.of(spec).to_hashed(),
        "benchmark": BenchmarkParameters.of(spec, image).to_hashed(),
    }
    return short(digest_of(inputs))


def release_of(spec: Spec, name: str, image: str, artifact: str) -> Release:
    """The release of an artifact served as the spec says; equal inputs give the equal id."""
    recipe = ServingRecipe.of(spec, name, image).to_hashed()
    return Release(id=short(digest_of([artifact, recipe])), artifact=artifact, recipe=recipe)


def walk(spec: Spec, name: str, pins: Mapping[str, str], image: str, outcome_of: OutcomeOf) -> Line:
    """Follow the line from the pins as far as results are known.

    Args:
        spec: What is asked for.
        name: The object's name, for the default model name.
        pins: Digest of every source, by the names of `source_names`.
        image: The pinned serving image.
        outcome_of: The known result of a call, or None.
    """
    return _Walk(spec, name, pins, image, outcome_of).line()


class _Missing(Exception):
    """The walk ends here: this call has no known result."""

    def __init__(self, call: StageCall) -> None:
        super().__init__(call.stage.value)
        self.call = call


class _Walk:
    """One walk; what it passes is collected as it goes."""

    def __init__(
        self, spec: Spec, name: str, pins: Mapping[str, str], image: str, outcome_of: OutcomeOf
    ) -> None:
        self.spec, self.name, self.pins, self.image = spec, name, pins, image
        self.outcome_of = outcome_of
        self.done: list[tuple[StageCall, StageResult]] = []
        self.candidate, self.served = DEFAULT_CANDIDATE, QUANTIZED
        self.digest = ""
        self.quality: Judgement | None = None
        self.judged_on = Part.ALL
        self.measurements: Measurements = {}

    def line(self) -> Line:
        """Walk until something is missing or all is judged."""
        try:
            models = self._pinned("base", "adapter")
            how = MergeParameters.of(self.spec).to_hashed()
            models["merged"] = self._result(Stage.MERGE, dict(models), how).digest
            models |= self._choose_candidate(models)
            assert self.quality is not None  # there is always the default recipe
            if self.quality.failed:
                return self._so_far(judgement=self.quality)
            parameters = BenchmarkParameters.of(self.spec, self.image).to_hashed()
            speed = self._result(Stage.BENCHMARK, models, parameters)
        except _Missing as missing:
            return self._so_far(missing=missing.call)
        self.measurements = self.measurements | speed.measurements
        judgement = self._accept(
            judge(self.spec.gates, self.measurements, self.judged_on, self.served)
        )
        if judgement.verdict is not Verdict.PASSED:
            return self._so_far(judgement=judgement)
        release = release_of(self.spec, self.name, self.image, models[self.served])
        return self._so_far(judgement=judgement, release=release)

    def _choose_candidate(self, models: Mapping[str, str]) -> dict[str, str]:
        """The first quantized model that passes on quality, or the last tried; none for None."""
        protocol = EvaluateParameters.of(self.spec).to_hashed()
        sets = self._pinned("task", "general")
        inputs = self._pinned("calibration") | {"merged": models["merged"]}
        tried = list(recipes(self.spec))
        chosen_on = Part.SELECTION if len(tried) > 1 else Part.ALL
        made: dict[str, str] = {}
        quality = None
        for recipe in tried:
            self.candidate, self.served = recipe.name, recipe.served
            parameters = recipe.to_hashed(self.spec)
            made = {}
            told: Measurements = {}
            if parameters is not None:
                quantized = self._result(Stage.QUANTIZE, inputs, parameters)
                made[QUANTIZED], told = quantized.digest, quantized.measurements
            parents = {**models, **sets, **made}
            self.digest = parents[self.served]
            self.measurements = told | self._result(Stage.EVALUATE, parents, protocol).measurements
            quality = self._judged_quality(chosen_on)
            if not _another_recipe_may_help(quality):
                break
        assert quality is not None  # there is always the default recipe
        if chosen_on is Part.SELECTION and quality.verdict is not Verdict.FAILED:
            self._judged_quality(Part.CONFIRMATION)
        return made

    def _judged_quality(self, part: Part) -> Judgement:
        self.judged_on = part
        judged = judge_quality(self.spec.gates, self.measurements, part, self.served)
        self.quality = self._accept(judged)
        return self.quality

    def _accept(self, judgement: Judgement) -> Judgement:
        overrides = self.spec.overrides or []
        return accept(judgement, {o.gate: o.reason for o in overrides if o.digest == self.digest})

    def _result(
        self, stage: Stage, parents: Mapping[str, str], parameters: dict[str, Any]
    ) -> StageResult:
        call = StageCall(
            stage=stage,
            stage_version=STAGE_VERSIONS[stage],
            parents=dict(parents),
            parameters=parameters,
            candidate="" if stage is Stage.MERGE else self.candidate,
        )
        result = self.outcome_of(call)
        if result is None:
            raise _Missing(call)
        self.done.append((call, result))
        return result

    def _pinned(self, *prefixes: str) -> dict[str, str]:
        return {key: pin for key, pin in self.pins.items() if key.startswith(prefixes)}

    def _so_far(
        self,
        missing: StageCall | None = None,
        judgement: Judgement | None = None,
        release: Release | None = None,
    ) -> Line:
        return Line(
            done=tuple(self.done),
            missing=missing,
            candidate=self.candidate,
            served=self.served,
            quality=self.quality,
            judgement=judgement,
            release=release,
            measurements=self.measurements,
        )


def _another_recipe_may_help(quality: Judgement) -> bool:
    """Whether quality has Failed, and all that Failed can be cured by another recipe."""
    failed = [g for g in quality.failed if g.verdict is Verdict.FAILED]
    return quality.verdict is Verdict.FAILED and all(g.recipe_can_help for g in failed)
