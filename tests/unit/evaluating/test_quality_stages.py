"""The stages quantize and evaluate as Jobs run them, on a random Llama of two layers."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_api.estimates import DIVERGENCE, comparison, is_comparison
from lora_api.gates import CONDITIONS, Verdict, judge
from lora_api.gatespec import Gates
from lora_api.jobcontract import Progress, Reason, Stage, StageResult
from lora_api.parameters import EvaluateParameters, QuantizeParameters
from lora_jobs.errors import Refused
from stagecontexts import FolderInputs, MemoryOutputs, digest_of_folder, stage_context
from tinyllama import CORPUS, sentences, write_llama, write_lora, write_merged, write_texts

pytestmark = pytest.mark.model

QUANTIZE = QuantizeParameters(
    bits=4, group_size=32, damping="0.05", samples=8, sequence_length=64
).to_hashed()
EVALUATE = EvaluateParameters(context_length=64).to_hashed()


def notes(count: int, start: int) -> list[str]:
    """Texts of the model's words that share no phrase with `sentences`."""
    words = sorted({word for text in CORPUS for word in text.split()})
    return [f"Note {i}: {' '.join(random.Random(i).choices(words, k=16))}"
            for i in range(start, start + count)]  # fmt: skip


class Run:
    """Inputs of one object and what its stages left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = write_llama(folder / "base")
        adapter = write_lora(base, folder / "adapter")
        merged = write_merged(base, adapter, folder / "merged")
        self.merged = digest_of_folder(merged)
        sources = {"base": base, "adapter0": adapter}
        texts = {
            "calibration0": notes(40, start=100), "calibration1": notes(20, start=200),
            "task": sentences(10), "general": sentences(10, start=50),
        }  # fmt: skip
        for name, records in texts.items():
            (folder / name).mkdir()
            sources[name] = write_texts(folder / name / "records.jsonl", *records).parent
        self.inputs = FolderInputs(sources, {self.merged: merged})
        (folder / "store").mkdir()
        self.outputs = MemoryOutputs(folder / "store")
        self.count = 0

    def stage(self, stage: Stage, parameters: dict[str, Any], **parents: str) -> StageResult:
        from importlib import import_module

        self.count += 1
        self.progress: list[Progress] = []
        work = self.folder / f"work{self.count}"
        context = stage_context(
            stage, parameters, self.inputs, self.outputs, work, parents, self.progress
        )
        result: StageResult = import_module(f"lora_jobs.stages.{stage}").run(context)
        assert result.input_hash == context.request.call.input_hash
        return result

    def quantize(self, **changes: Any) -> StageResult:
        sources = self.inputs.sources.items()
        calibration = {n: digest_of_folder(p) for n, p in sources if n.startswith("calibration")}
        parameters = {**QUANTIZE, **changes}
        result = self.stage(Stage.QUANTIZE, parameters, merged=self.merged, **calibration)
        published = self.outputs.folder / result.digest.replace(":", "-")
        self.inputs.artifacts[result.digest] = published
        return result

    def evaluate(self, quantized: str) -> StageResult:
        parents = {
            n: digest_of_folder(self.inputs.sources[n])
            for n in ("base", "adapter0", "task", "general")
        }
        if quantized:
            parents["quantized"] = quantized
        return self.stage(Stage.EVALUATE, EVALUATE, merged=self.merged, **parents)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def quantized(run: Run) -> StageResult:
    return run.quantize()


def test_quantize_publishes_what_it_made_and_says_how_it_went(
    run: Run, quantized: StageResult
) -> None:
    artifact = run.inputs.artifacts[quantized.digest]
    assert digest_of_folder(artifact) == quantized.digest
    config = json.loads((artifact / "config.json").read_text())
    assert config["quantization_config"]["group_size"] == 32
    assert quantized.notes["fallbacks"] == "0"
    assert "worst loss" in quantized.message


def test_all_conditions_are_measured_on_both_sets_and_a_second_candidate_reuses_all_but_its_own(
    run: Run, quantized: StageResult
) -> None:
    first = run.evaluate(quantized.digest)
    for metric in ("Perplexity/task", "Perplexity/general", "NegativeLogLikelihood/task"):
        assert set(first.measurements[metric]) == set(CONDITIONS), metric
    sizes = {c: int(n) for c, n in first.measurements["WeightsBytes"].items()}
    assert sizes["quantized"] < sizes["base"] == sizes["merged"] < sizes["dynamic"]
    assert first.notes["reusedScores"] == "0 of 8"

    other = run.quantize(groupSize=64)
    assert other.digest != quantized.digest
    second = run.evaluate(other.digest)
    assert second.notes["reusedScores"] == "6 of 8"
    assert {p.message for p in run.progress} == {"quantized on task", "quantized on general"}
    for metric, row in first.measurements.items():
        if is_comparison(metric):
            # 10 documents, 5 to a half: enough for an interval over all, and not over a half.
            assert ("lower" in row) == ("#" not in metric), metric
            assert row["documents"] == ("5" if "#" in metric else "10")
            continue
        again = second.measurements[metric]
        assert {c: row[c] for c in CONDITIONS[:3]} == {c: again[c] for c in CONDITIONS[:3]}
        assert row["quantized"] != again["quantized"], metric


def test_the_quantized_model_is_nearer_to_merged_than_to_base(
    run: Run, quantized: StageResult
) -> None:
    """Q8: quantizing the base, or the adapter's base unmerged, would be nearest to base."""
    told = run.evaluate(quantized.digest).measurements
    to_merged, to_base = (
        float(told[comparison(DIVERGENCE, "quantized", other)]["value"])
        for other in ("merged", "base")
    )
    assert 0 < to_merged < to_base


def test_activations_that_overflow_where_only_16_bits_are_kept_pass_no_gate(
    run: Run, tmp_path: Path
) -> None:
    """Q11: float16 ends at 65504; a model beyond it answers NaN, which must not be left out."""
    import torch
    from transformers import AutoModelForCausalLM

    digests = {}
    for name, factor in (("sound", 1), ("overflowing", 3e4)):
        folder = tmp_path / name
        shutil.copytree(run.inputs.artifacts[run.merged], folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.model.layers[1].mlp.up_proj.weight.data *= factor
        model.to(torch.float16).save_pretrained(folder)
        digests[name] = digest_of_folder(folder)
        run.inputs.artifacts[digests[name]] = folder
    parents = {n: digest_of_folder(run.inputs.sources[n]) for n in ("base", "adapter0", "task")}
    found = run.stage(
        Stage.EVALUATE, EVALUATE, merged=digests["sound"], quantized=digests["overflowing"],
        **parents,
    )  # fmt: skip
    seen = found.measurements["NegativeLogLikelihood/task"]
    assert math.isfinite(float(seen["merged"]))
    assert not math.isfinite(float(seen["quantized"]))
    (task,) = (g for g in judge(Gates(), found.measurements).gates if g.name == "taskQuality")
    assert task.verdict is Verdict.ERROR


def test_without_a_quantized_model_there_are_three_conditions_and_no_calibration_is_asked_for(
    run: Run,
) -> None:
    before = dict(run.inputs.sources)
    run.inputs.sources = {n: f for n, f in before.items() if not n.startswith("calibration")}
    try:
        found = run.evaluate("")
    finally:
        run.inputs.sources = before
    for metric, row in found.measurements.items():
        if not is_comparison(metric):
            assert set(row) == set(CONDITIONS) - {"quantized"}, metric
    assert not [m for m in found.measurements if "quantized" in m]


def test_a_record_in_calibration_and_evaluation_stops_both_stages(
    run: Run, quantized: StageResult, tmp_path: Path
) -> None:
    before = dict(run.inputs.sources)
    shared = notes(3, start=200)[1]
    leaking = write_texts(tmp_path / "task.jsonl", *sentences(5), shared.upper())
    run.inputs.sources["task"] = leaking
    try:
        with pytest.raises(Refused, match=r"1 of 6 records of task") as refused:
            run.quantize()
        assert refused.value.reason is Reason.DATASET_OVERLAP
        with pytest.raises(Refused, match=r"1 of 6 records of task") as refused:
            run.evaluate(quantized.digest)
        assert refused.value.reason is Reason.DATASET_OVERLAP
    finally:
        run.inputs.sources = before


def test_too_little_calibration_says_how_many_tokens_are_missing(run: Run) -> None:
    with pytest.raises(Refused, match=r"\d+ more") as refused:
        run.quantize(samples=100_000)
    assert refused.value.reason is Reason.TOO_LITTLE_CALIBRATION
