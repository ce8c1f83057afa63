"""The line of stages: what runs next, what is reused, which candidate is chosen."""

from typing import Any

import pytest

from builders import (
    estimate_row,
    measurements,
    merged_against_base,
    spec_document,
    without_quantized,
)
from lora_api.estimates import Part, comparison
from lora_api.gates import QUANTIZED_MODULES, Measurements, Verdict, modules_row
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.line import Line, recipes, run_id, source_names, walk
from lora_api.spec import Spec, parse_spec

PINS = {
    name: f"sha256:{i:064x}" for i, name in enumerate(("base", "adapter0", "calibration0", "task"))
}


class World:
    """Runs whatever the line asks for, with canned quality for each group size."""

    def __init__(
        self, quality: dict[int, float] | None = None, fallbacks: dict[int, int] | None = None
    ) -> None:
        self.quality = quality or {}
        self.fallbacks = fallbacks or {}
        self.results: dict[str, StageResult] = {}
        self.ran: list[str] = []

    def outcome_of(self, call: StageCall) -> StageResult | None:
        return self.results.get(call.input_hash)

    def run(self, call: StageCall) -> None:
        assert call.input_hash not in self.results, "no work runs twice"
        self.ran.append(f"{call.stage}{':' + call.candidate if call.candidate else ''}")
        digest = call.input_hash if call.stage in (Stage.MERGE, Stage.QUANTIZE) else ""
        self.results[call.input_hash] = StageResult(
            stage=call.stage, input_hash=call.input_hash, digest=digest,
            measurements=self._measurements(call),
        )  # fmt: skip

    def _measurements(self, call: StageCall) -> Measurements:
        if call.stage is Stage.BENCHMARK:
            rows = measurements()[1]
            return rows if "quantized" in call.parents else merged_against_base(rows)
        if call.stage is Stage.QUANTIZE and call.parameters.get("method") != "AWQ":
            fallbacks = self.fallbacks.get(call.parameters.get("groupSize", 0), 0)
            return modules_row(28, fallbacks, 0)
        if call.stage is not Stage.EVALUATE:
            return {}
        if "quantized" not in call.parents:
            return without_quantized(measurements()[0])
        parent = next(c for c in self.calls if c.input_hash == call.parents["quantized"])
        worse = self.quality.get(parent.parameters.get("groupSize", 0), 1.01)
        return measurements(task_ratio=worse)[0]

    def to_the_end(self, spec: Spec) -> Line:
        self.calls: list[StageCall] = []
        while (line := walk(spec, "demo", PINS, "image", self.outcome_of)).missing:
            self.calls.append(line.missing)
            self.run(line.missing)
        return line


def spec(**changes: Any) -> Spec:
    return parse_spec(spec_document(**changes))


WITH_CANDIDATES = {
    "quantization.candidates": [
        {"name": "g64", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 64}},
        {"name": "g32", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 32}},
    ]
}


def test_a_good_model_goes_through_every_stage_once_and_may_roll_out() -> None:
    world = World()
    line = world.to_the_end(spec())
    assert world.ran == ["merge", "quantize:default", "evaluate:default", "benchmark:default"]
    assert line.judgement is not None
    assert line.judgement.verdict is Verdict.PASSED
    assert line.release is not None
    assert line.release.artifact == line.artifact


def test_the_next_recipe_is_tried_only_while_quality_fails() -> None:
    world = World(quality={128: 1.3, 64: 1.2, 32: 1.02})
    line = world.to_the_end(spec(**WITH_CANDIDATES))
    assert line.candidate == "g32"
    assert [r for r in world.ran if r.startswith("quantize")] == [
        "quantize:default", "quantize:g64", "quantize:g32",
    ]  # fmt: skip
    assert world.ran.count("benchmark:g32") == 1
    assert line.release is not None


def test_a_model_rejected_on_quality_takes_no_time_on_the_benchmark() -> None:
    world = World(quality={128: 1.3, 64: 1.3, 32: 1.3})
    line = world.to_the_end(spec(**WITH_CANDIDATES))
    assert not [r for r in world.ran if r.startswith("benchmark")]
    assert line.release is None
    assert line.judgement is not None
    assert line.judgement.verdict is Verdict.FAILED


def test_a_recipe_whose_modules_were_rounded_to_nearest_gives_way_before_the_benchmark() -> None:
    world = World(fallbacks={128: 3})
    line = world.to_the_end(spec(**WITH_CANDIDATES))
    assert line.candidate == "g64"
    assert [r for r in world.ran if r.startswith("benchmark")] == ["benchmark:g64"]
    assert line.measurements[QUANTIZED_MODULES]["fallbacks"] == "0", "of the chosen recipe"
    assert line.release is not None


def test_one_recipe_with_fallbacks_is_rejected_unless_the_user_takes_the_gate_out() -> None:
    world = World(fallbacks={128: 1})
    rejected = world.to_the_end(spec())
    assert rejected.judgement is not None
    assert [g.name for g in rejected.judgement.failed] == ["fallbacks"]
    assert "benchmark:default" not in world.ran
    assert world.to_the_end(spec(**{"gates.fallbacks": {"mode": "DryRun"}})).release is not None
    assert world.ran.count("quantize:default") == 1


NONE: dict[str, Any] = {"name": "none", "method": "None"}
G32: dict[str, Any] = {"name": "g32", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 32}}


def test_without_quantization_the_merged_model_is_judged_and_released() -> None:
    world = World()
    line = world.to_the_end(spec(**{"quantization.method": "None"}))
    assert world.ran == ["merge", "evaluate:default", "benchmark:default"]
    assert all("quantized" not in call.parents for call in world.calls)
    merged = world.results[world.calls[0].input_hash].digest
    assert line.release is not None
    assert (line.artifact, line.release.artifact) == (merged, merged)


def test_the_merged_model_is_the_last_resort_of_recipes_that_cost_too_much() -> None:
    world = World(quality={128: 1.3, 32: 1.2})
    line = world.to_the_end(spec(**{"quantization.candidates": [G32, NONE]}))
    assert [r for r in world.ran if r.startswith(("quantize", "benchmark"))] == [
        "quantize:default", "quantize:g32", "benchmark:none",
    ]  # fmt: skip
    assert line.candidate == "none"
    assert line.release is not None
    assert line.release.artifact == world.results[world.calls[0].input_hash].digest


def test_who_quantizes_nothing_needs_no_calibration_and_who_does_is_told_that_it_is_missing() -> (
    None
):
    bare = spec_document(quantization={"method": "None", "candidates": [NONE]})
    world = World()
    line = world.to_the_end(parse_spec(bare))
    assert line.release is not None
    assert not [name for call in world.calls for name in call.parents if "calibration" in name]
    for method, candidates in (("GPTQ", []), ("None", [G32])):
        quantization = {"method": method, "candidates": candidates}
        with pytest.raises(ValueError, match="calibration is missing: GPTQ and AWQ need texts"):
            parse_spec(spec_document(quantization=quantization))


def test_awq_is_quantized_by_its_own_parameters_without_damping() -> None:
    awq = {"name": "awq", "method": "AWQ", "awq": {"bits": 4, "groupSize": 32}}
    world = World(quality={128: 1.3})
    line = world.to_the_end(spec(**{"quantization.candidates": [awq]}))
    assert line.candidate == "awq"
    asked = [c.parameters for c in world.calls if c.stage is Stage.QUANTIZE]
    assert [p.get("method") for p in asked] == [None, "AWQ"]
    assert (asked[1]["groupSize"], "damping" in asked[1]) == (32, False)


def test_a_run_without_quantization_is_another_run() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"quantization.method": "None"},
        {"quantization.method": "AWQ"},
    ]
    assert len({run_id(spec(**change), PINS, "image") for change in changes}) == 3


@pytest.mark.parametrize(
    "candidate",
    [{"name": "a", "method": "GPTQ"}, NONE | {"gptq": {"bits": 4, "groupSize": 32}}],
    ids=["GPTQ without parameters", "None with parameters"],
)
def test_a_candidate_with_parameters_of_another_method_is_refused(
    candidate: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="method GPTQ needs gptq"):
        spec(**{"quantization.candidates": [candidate]})


class HalvesWorld(World):
    """Quality by group size and by part of the documents."""

    def __init__(self, quality: dict[int, dict[Part, float]]) -> None:
        super().__init__()
        self.by_part = quality

    def _measurements(self, call: StageCall) -> Measurements:
        rows = super()._measurements(call)
        if call.stage is Stage.EVALUATE:
            parent = next(c for c in self.calls if c.input_hash == call.parents["quantized"])
            for part, ratio in self.by_part[parent.parameters.get("groupSize", 128)].items():
                key = comparison("Perplexity/task", "quantized", "merged", part)
                rows[key] = estimate_row(ratio)
        return rows


GOOD_EVERYWHERE = {Part.SELECTION: 1.02, Part.CONFIRMATION: 1.02}


def test_a_recipe_that_was_lucky_on_the_half_that_chose_it_is_rejected_on_the_other() -> None:
    lucky = {Part.SELECTION: 1.02, Part.CONFIRMATION: 1.2}
    line = HalvesWorld({128: lucky, 64: GOOD_EVERYWHERE, 32: GOOD_EVERYWHERE}).to_the_end(
        spec(**WITH_CANDIDATES)
    )
    assert line.candidate == "default", "the confirmation is asked once, and no other recipe tried"
    assert line.judgement is not None
    assert line.judgement.verdict is Verdict.FAILED


def test_several_recipes_are_chosen_and_judged_on_different_documents() -> None:
    bad_for_the_choice = {Part.SELECTION: 1.2, Part.CONFIRMATION: 1.02}
    world = HalvesWorld({128: bad_for_the_choice, 64: GOOD_EVERYWHERE, 32: GOOD_EVERYWHERE})
    line = world.to_the_end(spec(**WITH_CANDIDATES))
    assert (line.candidate, line.release is not None) == ("g64", True)


def test_a_single_recipe_is_judged_on_all_documents() -> None:
    line = HalvesWorld({128: {Part.ALL: 1.2, **GOOD_EVERYWHERE}}).to_the_end(spec())
    assert line.judgement is not None
    assert line.judgement.verdict is Verdict.FAILED


def test_an_inconclusive_recipe_holds_the_release_and_no_other_is_tried() -> None:
    unsure = {part: 1.0495 for part in Part}  # +- 0.001
    world = HalvesWorld({128: unsure, 64: GOOD_EVERYWHERE, 32: GOOD_EVERYWHERE})
    line = world.to_the_end(spec(**WITH_CANDIDATES))
    assert line.candidate == "default"
    assert line.judgement is not None
    assert line.judgement.verdict is Verdict.INCONCLUSIVE
    assert line.release is None
    assert not [r for r in world.ran if r.startswith("benchmark")]


UNCHANGED_BY = {
    "replicas": {"serving.replicas": 5},
    "service port": {"serving.service": {"port": 9000}},
    "job timeout": {"jobs": {"defaults": {"timeout": "9h"}}},
    "max duration": {"benchmark.maxDuration": "3h"},
    "labels of jobs": {"jobs": {"defaults": {"labels": {"a": "b"}}}},
}


@pytest.mark.parametrize("change", UNCHANGED_BY.values(), ids=UNCHANGED_BY.keys())
def test_no_stage_runs_again_for(change: dict[str, Any]) -> None:
    world = World()
    before = world.to_the_end(spec())
    assert walk(spec(**change), "demo", PINS, "image", world.outcome_of).release == before.release


RUNS_AGAIN = {
    "group size": ({"quantization.gptq": {"groupSize": 64}}, "quantize"),
    "calibration length": ({"quantization.calibration.sequenceLength": 64}, "quantize"),
    "context length": ({"evaluation.contextLength": 64}, "evaluate"),
    "workload": ({"benchmark.workload": {"inputTokens": 7}}, "benchmark"),
    "precision": ({"benchmark.precision": "1%"}, "benchmark"),
    "engine flags": ({"serving.args": ["--max-model-len", "64"]}, "benchmark"),
    "runtime": ({"serving.runtime": "VLLM"}, "benchmark"),
    "rerun": ({"benchmark.rerun": "again"}, "benchmark"),
}


@pytest.mark.parametrize(("change", "first"), RUNS_AGAIN.values(), ids=RUNS_AGAIN.keys())
def test_only_the_stages_from_there_run_again_for(change: dict[str, Any], first: str) -> None:
    world = World()
    world.to_the_end(spec())
    line = walk(spec(**change), "demo", PINS, "image", world.outcome_of)
    assert line.missing is not None
    assert line.missing.stage == first


def test_stricter_gates_judge_again_without_measuring() -> None:
    world = World()
    world.to_the_end(spec())
    strict = spec(**{"gates.taskQuality": {"maxIncrease": "0.1%"}})
    line = walk(strict, "demo", PINS, "image", world.outcome_of)
    assert line.missing is None
    assert line.release is None


def test_the_name_of_a_candidate_is_not_its_identity() -> None:
    first, *_ = recipes(spec())
    call = StageCall(stage=Stage.QUANTIZE, candidate=first.name)
    assert call.input_hash == call.model_copy(update={"candidate": "other"}).input_hash


def test_every_source_has_a_name() -> None:
    assert set(source_names(spec())) == {"base", "adapter0", "calibration0", "task"}


def test_stored_hashes_never_change() -> None:
    # Golden vectors: a change here makes every user measure and quantize again.
    world = World()
    world.to_the_end(spec())
    assert [c.input_hash.removeprefix("sha256:")[:12] for c in world.calls] == [
        "dbe4911b98ea",
        "755a0f1faae9",
        "7c47911cc7f8",
        "e7dd4b31e6bd",
    ]
    assert run_id(spec(), PINS, "image") == "20ef9cb3"


def adapters(*weights: str | None) -> Spec:
    listed = [
        {"uri": f"s3://models/{i}"} | ({"weight": weight} if weight else {})
        for i, weight in enumerate(weights)
    ]
    return spec(adapters=listed)


def first_call(asked: Spec) -> StageCall:
    missing = walk(asked, "demo", PINS, "image", World().outcome_of).missing
    assert missing is not None
    return missing


@pytest.mark.parametrize("weights", [("1",), ("1.0",), ("01.000",), (None, "1")])
def test_a_weight_of_one_is_no_other_work_than_none(weights: tuple[str | None, ...]) -> None:
    plain = adapters(*(None for _ in weights))
    assert first_call(adapters(*weights)) == first_call(plain)
    assert run_id(adapters(*weights), PINS, "image") == run_id(plain, PINS, "image")


def test_another_weight_merges_again_however_it_is_written() -> None:
    half = adapters("0.5", None)
    assert first_call(half).stage is Stage.MERGE
    assert first_call(half).parameters == {"weights": ["0.5", "1"]}
    assert first_call(half) == first_call(adapters("00.50", "1.0"))
    assert first_call(half).input_hash != first_call(adapters(None, None)).input_hash
    assert run_id(half, PINS, "image") != run_id(adapters(None, None), PINS, "image")


def test_another_base_of_the_adapter_is_another_merge_and_another_run() -> None:
    plain, qlora = (
        World().to_the_end(spec(**{"merge.baseWeights": w})) for w in ("Original", "DequantizedNF4")
    )
    assert plain.done[0][0].parameters == {}
    assert qlora.done[0][0].parameters == {"baseWeights": "DequantizedNF4"}
    assert plain.release != qlora.release


@pytest.mark.parametrize("weight", ["-1", "1e3", ".5", "half", ""])
def test_a_weight_that_is_no_decimal_is_refused(weight: str) -> None:
    with pytest.raises(ValueError, match="weight"):
        spec(adapters=[{"uri": "s3://models/a", "weight": weight}])


def calibrated_by(*weights: str | None) -> Spec:
    sources = [
        {"uri": f"s3://texts/{i}"} | ({"weight": weight} if weight else {})
        for i, weight in enumerate(weights)
    ]
    return spec(**{"quantization.calibration.sources": sources})


def test_weights_of_calibration_sources_quantize_again_however_they_are_written() -> None:
    def quantized(asked: Spec) -> StageCall:
        world = World()
        world.to_the_end(asked)
        return next(call for call in world.calls if call.stage is Stage.QUANTIZE)

    assert quantized(calibrated_by("0.80", "0.2")).parameters["weights"] == ["0.8", "0.2"]
    assert quantized(calibrated_by("0.80", "0.2")) == quantized(calibrated_by("0.8", "00.2"))
    assert "weights" not in quantized(calibrated_by(None, None)).parameters


@pytest.mark.parametrize(
    ("weights", "says"),
    [(("1", None), "every calibration source a weight"), (("1", "0.0"), "leave it out")],
)
def test_weights_that_say_nothing_are_refused(weights: tuple[str | None, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        calibrated_by(*weights)
