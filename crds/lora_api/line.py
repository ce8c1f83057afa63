"""The line of stages as one pure walk: what is done, what comes next, what was decided.

The operator asks it with the results of its Jobs, `resolve` with the store's action entries, and
the local run with both: all three see the same next step, because it is the same function.

    merge -> (quantize -> evaluate)* -> benchmark -> judge

Quality decides the candidate: the next recipe is tried only when a quality gate that a recipe can
change has Failed. Speed is measured for the chosen one only, and not at all for one that is
rejected on quality: that would be accelerator time spent on a model that cannot serve.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from lora_api.digests import digest_of, short
from lora_api.gates import Judgement, Measurements, Verdict, judge, judge_quality
from lora_api.jobcontract import Release, Stage, StageCall, StageResult
from lora_api.parameters import (
    BenchmarkParameters,
    EvaluateParameters,
    QuantizeParameters,
    ServingRecipe,
)
from lora_api.spec import Gptq, Spec

DEFAULT_CANDIDATE = "default"

OutcomeOf = Callable[[StageCall], StageResult | None]


@dataclass(frozen=True)
class Recipe:
    """One candidate: its name and complete quantization parameters."""

    name: str
    gptq: Gptq


@dataclass(frozen=True)
class Line:
    """How far a run is.

    Attributes:
        done: Finished stages in order, reused or not.
        missing: The next piece of work, None when all is measured.
        candidate: Name of the recipe being tried or chosen.
        quality: Judgement of the last evaluated candidate.
        judgement: All gates; None until it can be made.
        release: What may roll out; only with verdict Passed.
    """

    done: tuple[tuple[StageCall, StageResult], ...] = ()
    missing: StageCall | None = None
    candidate: str = DEFAULT_CANDIDATE
    quality: Judgement | None = None
    judgement: Judgement | None = None
    release: Release | None = None
    measurements: Measurements = field(default_factory=dict)

    @property
    def artifact(self) -> str:
        """Digest of the chosen candidate's quantized model, empty before there is one."""
        digests = [
            r.digest
            for c, r in self.done
            if c.stage is Stage.QUANTIZE and c.candidate == self.candidate
        ]
        return digests[-1] if digests else ""


def source_names(spec: Spec) -> dict[str, str]:
    """Every source of the spec: name in `parents` -> URI."""
    names = {"base": spec.base_model.uri}
    names |= {f"adapter{i}": a.uri for i, a in enumerate(spec.adapters)}
    calibration = spec.quantization.calibration.sources
    names |= {f"calibration{i}": s.uri for i, s in enumerate(calibration)}
    names["task"] = spec.evaluation.task.uri
    if spec.evaluation.general:
        names["general"] = spec.evaluation.general.uri
    return names


def recipes(spec: Spec) -> Iterator[Recipe]:
    """The candidates in the order in which they are tried."""
    yield Recipe(DEFAULT_CANDIDATE, spec.quantization.gptq)
    for candidate in spec.quantization.candidates or []:
        own = candidate.gptq.model_dump(exclude_none=True)
        yield Recipe(candidate.name, Gptq(**own))


def run_id(spec: Spec, pins: Mapping[str, str], image: str) -> str:
    """Eight hex digits that identify the run's inputs, never the generation."""
    inputs = {
        "pins": dict(pins),
        "recipes": [[r.name, r.gptq.to_json()] for r in recipes(spec)],
        "calibration": QuantizeParameters.of(spec, Gptq()).to_hashed(),
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
    done: list[tuple[StageCall, StageResult]] = []

    def known(call: StageCall) -> StageResult | None:
        result = outcome_of(call)
        if result is not None:
            done.append((call, result))
        return result

    models = {key: pins[key] for key in pins if key == "base" or key.startswith("adapter")}
    sets = {key: pins[key] for key in ("task", "general") if key in pins}
    calibration = {key: pins[key] for key in pins if key.startswith("calibration")}

    merge = StageCall(stage=Stage.MERGE, parents=models)
    if (merged := known(merge)) is None:
        return Line(tuple(done), missing=merge)

    line = Line(tuple(done))
    for recipe in recipes(spec):
        quantize = StageCall(
            stage=Stage.QUANTIZE,
            parents={"merged": merged.digest} | calibration,
            parameters=QuantizeParameters.of(spec, recipe.gptq).to_hashed(),
            candidate=recipe.name,
        )
        if (quantized := known(quantize)) is None:
            return Line(tuple(done), quantize, recipe.name, line.quality)
        trio = models | {"merged": merged.digest, "quantized": quantized.digest}
        evaluate = StageCall(
            stage=Stage.EVALUATE,
            parents=trio | sets,
            parameters=EvaluateParameters.of(spec).to_hashed(),
            candidate=recipe.name,
        )
        if (evaluated := known(evaluate)) is None:
            return Line(tuple(done), evaluate, recipe.name, line.quality)
        quality = judge_quality(spec.gates, evaluated.measurements)
        line = Line(tuple(done), None, recipe.name, quality, measurements=evaluated.measurements)
        if not _another_recipe_may_help(quality):
            break

    assert line.quality is not None  # there is always the default recipe
    if line.quality.failed:
        return Line(line.done, None, line.candidate, line.quality, line.quality, None,
                    line.measurements)  # fmt: skip

    benchmark = StageCall(
        stage=Stage.BENCHMARK,
        parents=trio,
        parameters=BenchmarkParameters.of(spec, image).to_hashed(),
        candidate=line.candidate,
    )
    if (benchmarked := known(benchmark)) is None:
        return Line(tuple(done), benchmark, line.candidate, line.quality,
                    measurements=line.measurements)  # fmt: skip
    measurements = line.measurements | benchmarked.measurements
    judgement = judge(spec.gates, measurements)
    release = None
    if judgement.verdict is Verdict.PASSED:
        release = release_of(spec, name, image, quantized.digest)
    return Line(tuple(done), None, line.candidate, line.quality, judgement, release, measurements)


def _another_recipe_may_help(quality: Judgement) -> bool:
    failed = quality.failed
    return bool(failed) and all(g.verdict is Verdict.FAILED and g.recipe_can_help for g in failed)
