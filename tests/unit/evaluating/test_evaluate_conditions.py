"""Perplexity of loaded models: right by an independent computation, and never computed twice."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_api.estimates import DIVERGENCE, PASS_RATE, TOP_TOKEN_AGREEMENT, comparison
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED
from lora_api.jobcontract import Progress
from lora_api.scoring import Scorer, ScorerType
from lora_api.spec import LossOn
from lora_jobs.datasets.questions import Question
from lora_jobs.datasets.records import read_records
from lora_jobs.evaluating.comparisons import comparisons_of
from lora_jobs.evaluating.distributions import DISTRIBUTIONS, agreement_rows, distributions_look
from lora_jobs.evaluating.passing import PASSING, pass_rows, passing_look
from lora_jobs.evaluating.scores import Score, measurements_of
from stagecontexts import MemoryOutputs
from tinyllama import sentences, write_llama, write_lora, write_merged, write_texts

pytestmark = pytest.mark.model

CONTEXT = 24


class Models:
    """Base, adapter and their merge, and a set of texts."""

    def __init__(self, folder: Path) -> None:
        self.base = write_llama(folder / "base")
        self.adapter = write_lora(self.base, folder / "adapter")
        self.merged = write_merged(self.base, self.adapter, folder / "merged")
        self.texts = write_texts(folder / "task.jsonl", *sentences(12))

    def subjects(self) -> list[Any]:
        from lora_jobs.evaluating.measure import Subject

        return [
            Subject(BASE, (self.base,), ("b",)),
            Subject(DYNAMIC, (self.base, self.adapter), ("b", "a")),
            Subject(MERGED, (self.merged,), ("m",)),
        ]

    def task(self, dtype: str = "bfloat16") -> Any:
        from lora_jobs.evaluating.sets import evaluation_set, protocol_of
        from lora_jobs.pretrained import load_tokenizer

        tokenizer = load_tokenizer(self.merged)
        protocol = protocol_of(self.merged, tokenizer, dtype, CONTEXT)
        records = read_records(self.texts, name="task")
        return evaluation_set("task", records, "d", LossOn.COMPLETIONS, tokenizer, protocol)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def measured(
    models: Models, entries: Any, progress: list[Progress], dtype: str = "bfloat16"
) -> Any:
    from lora_jobs.evaluating.measure import measure

    task = models.task(dtype)
    looks = [distributions_look(task)]
    return measure(models.subjects(), [task], dtype, entries, progress.append, looks)


@pytest.fixture(scope="module")
def fp32(models: Models) -> dict[str, Score]:
    from lora_jobs.evaluating.measure import NoEntries

    evaluation = measured(models, NoEntries(), [], "float32")
    assert not evaluation.notes
    return {s.condition: s for s in evaluation.scores}


def test_every_window_has_the_loss_that_transformers_computes(
    models: Models, fp32: dict[str, Score]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models.merged, dtype=torch.float32)
    windows = models.task("float32").windows
    assert len({len(w.token_ids) for w in windows}) > 2  # so that padding is exercised
    expected = []
    for window in windows:
        ids = torch.tensor([window.token_ids])
        with torch.inference_mode():
            loss = model(input_ids=ids, labels=ids).loss  # mean over all but the first
        expected.append(loss.item() * (len(window.token_ids) - 1))
    assert fp32[MERGED].nlls == pytest.approx(expected, rel=1e-4)
    tokens = sum(len(w.token_ids) - 1 for w in windows)
    assert fp32[MERGED].perplexity == pytest.approx(math.exp(sum(expected) / tokens), rel=1e-4)


def test_merged_is_like_dynamic_and_unlike_base(fp32: dict[str, Score]) -> None:
    base, dynamic, merged = (fp32[c].nll_per_token for c in (BASE, DYNAMIC, MERGED))
    effect = abs(dynamic - base)
    assert effect > 0.05  # the adapter does something, so that the next line can fail
    assert abs(merged - dynamic) < 0.05 * effect


def test_what_merged_would_say_next_is_near_dynamic_and_far_from_base(models: Models) -> None:
    from lora_jobs.evaluating.measure import NoEntries

    rows = agreement_rows(measured(models, NoEntries(), [], "float32").looked[DISTRIBUTIONS])

    def apart(condition: str, against: str) -> float:
        return float(rows[comparison(DIVERGENCE, condition, against)]["value"])

    assert apart(DYNAMIC, BASE) > 0.01  # the adapter does something
    assert apart(MERGED, DYNAMIC) < 0.01 * apart(MERGED, BASE)
    assert float(rows[comparison(TOP_TOKEN_AGREEMENT, MERGED, DYNAMIC)]["value"]) > 0.99


def test_every_condition_answers_and_none_is_asked_twice(models: Models, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from lora_jobs.evaluating.measure import measure
    from lora_jobs.pretrained import load_tokenizer

    tokenizer: Any = load_tokenizer(models.merged)
    prompts = [tuple(tokenizer(text).input_ids) for text in ("Record 1:", "and", "Record 2: the")]
    merged = AutoModelForCausalLM.from_pretrained(models.merged, dtype=torch.float32)
    said = []
    for prompt in prompts:  # token by token, without a cache
        ids = list(prompt)
        for _ in range(6):
            with torch.inference_mode():
                ids.append(int(merged(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        said.append(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))
    questions = [Question(p, answer) for p, answer in zip(prompts, said, strict=True)]
    scorer = Scorer(type=ScorerType.EXACT_MATCH, max_tokens=6)
    store, task = MemoryOutputs(tmp_path), models.task("float32")
    look = passing_look(scorer, questions, tokenizer, task.key)
    first = measure(models.subjects(), [task], "float32", store, lambda _: None, [look])
    rates = pass_rows(first.looked[PASSING])[PASS_RATE]
    assert (rates[MERGED], rates[DYNAMIC]) == ("1.000000", "1.000000")
    assert float(rates[BASE]) < 1, "the adapter changes what is said"
    again = replace(look, ask=lambda model: pytest.fail("asked again"))
    second = measure(models.subjects(), [task], "float32", store, lambda _: None, [again])
    assert second.looked == first.looked


def test_weighted_adapters_are_measured_unmerged_as_they_are_merged(
    models: Models, tmp_path: Path
) -> None:
    from lora_jobs.evaluating.measure import NoEntries, Subject, measure
    from lora_jobs.merging import merge_adapters

    other = write_lora(models.base, tmp_path / "other", seed=2)
    merged = tmp_path / "merged"
    merge_adapters(models.base, [(models.adapter, 0.5), (other, 1.5)], merged, lambda _: None)
    folders, digests = (models.base, models.adapter, other), ("b", "a", "o")
    subjects = [
        Subject(DYNAMIC, folders, digests, ("0.5", "1.5")),
        Subject(MERGED, (merged,), ("m",)),
        Subject(BASE, (models.base,), ("b",)),
    ]
    weighted = measure(subjects, [models.task("float32")], "float32", NoEntries(), lambda _: None)
    nlls = {s.condition: s.nll_per_token for s in weighted.scores}
    effect = abs(nlls[MERGED] - nlls[BASE])
    assert effect > 0.05
    assert abs(nlls[DYNAMIC] - nlls[MERGED]) < 0.05 * effect


def test_stored_scores_are_read_back_and_no_model_is_loaded_again(
    models: Models, tmp_path: Path
) -> None:
    store = MemoryOutputs(tmp_path)
    progress: list[Progress] = []
    first = measured(models, store, progress)
    assert (progress[-1].done, progress[-1].unit) == (progress[-1].total, "windows")
    copy = Models.__new__(Models)
    copy.__dict__ |= models.__dict__
    copy.base = tmp_path / "base"
    shutil.copytree(models.base, copy.base)
    (copy.base / "config.json").write_text("{")  # a model that would not load
    second = measured(copy, store, progress := [])
    assert second.scores == first.scores
    assert (second.reused, progress) == (3, [])


def test_of_two_who_measure_at_once_both_report_the_number_that_was_stored_first(
    models: Models, tmp_path: Path
) -> None:
    class Slow(MemoryOutputs):
        """Shows nothing until something is written, as when another is just quicker."""

        def get_json(self, key: str) -> dict[str, object] | None:
            return super().get_json(key) if self.lost else None

        def put_json_once(self, key: str, document: object) -> bool:
            self.lost = True
            return super().put_json_once(key, document)

        lost = False

    store = MemoryOutputs(tmp_path)
    winner = measured(models, store, [])
    for key, document in store.documents.items():
        if "nlls" not in document:
            continue
        nlls = [f"{float(n) + 1:.6f}" for n in document["nlls"]]
        store.documents[key] = {**document, "nlls": nlls}
    loser = measured(models, Slow(tmp_path, store.documents), [])
    for won, lost in zip(winner.scores, loser.scores, strict=True):
        assert lost.nlls == pytest.approx([n + 1 for n in won.nlls], abs=1e-5)


def test_a_dynamic_condition_that_peft_does_not_take_whole_is_left_out_with_a_note(
    models: Models, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    from lora_jobs.evaluating.measure import NoEntries

    broken = Models.__new__(Models)
    broken.__dict__ |= models.__dict__
    for name, change in {"missing": _drop_one, "foreign": _rename_one}.items():
        broken.adapter = tmp_path / name
        shutil.copytree(models.adapter, broken.adapter)
        file = broken.adapter / "adapter_model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
        evaluation = measured(broken, NoEntries(), [])
        assert {s.condition for s in evaluation.scores} == {BASE, MERGED}
        assert "not measured" in evaluation.notes[DYNAMIC], name
        assert DYNAMIC not in measurements_of(evaluation.scores, {})["Perplexity/task"]


def _drop_one(tensors: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(tensors.items())[1:])


def _rename_one(tensors: dict[str, Any]) -> dict[str, Any]:
    (first, tensor), *rest = sorted(tensors.items())
    return {first.replace("layers.0", "layers.7"): tensor, **dict(rest)}


def test_weight_bytes_of_dynamic_are_base_and_adapter(models: Models) -> None:
    from lora_jobs.evaluating.measure import NoEntries
    from lora_jobs.weightfiles import weights_bytes

    found = measured(models, NoEntries(), []).weights_bytes
    adapter = weights_bytes(models.adapter)
    assert found == {
        BASE: weights_bytes(models.base),
        DYNAMIC: weights_bytes(models.base) + adapter,
        MERGED: weights_bytes(models.merged),
    }
    assert adapter > 0


def test_a_widened_layer_has_the_weights_that_its_codes_stand_for(
    models: Models, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    from lora_jobs.evaluating.models import causal_model
    from lora_jobs.quantizing.lowbits import quantize_model

    rows = [[(7 * i + j) % 300 + 2 for j in range(64)] for i in range(8)]
    quantize_model(
        models.merged, rows, tmp_path / "q", bits=4, group_size=32, damping="0.05",
        progress=lambda p: None,
    )  # fmt: skip
    stored = load_file(tmp_path / "q" / "model.safetensors")
    with causal_model(tmp_path / "q", "bfloat16") as model:
        layers = {n: m for n, m in model.named_modules() if f"{n}.qweight" in stored}
        assert len(layers) == 14
        for name, layer in layers.items():
            exact = _dequantized(stored, name)
            # One rounding to fp16 in the product, one to bf16.
            bound = exact.abs() * (2**-8 + 2**-11) + 1e-7
            assert (layer.weight.float() - exact).abs().le(bound).all(), name
            assert layer.weight.dtype is torch.bfloat16


def _dequantized(stored: dict[str, Any], name: str) -> Any:
    """GPTQ's v1 format by its definition: (code - (stored zero + 1)) * scale of the group."""
    import torch

    codes, zeros = stored[f"{name}.qweight"], stored[f"{name}.qzeros"]
    shifts = torch.arange(0, 32, 4)
    code = ((codes[:, None, :] >> shifts[None, :, None]) & 15).reshape(-1, codes.shape[1])
    zero = ((zeros[:, :, None] >> shifts) & 15).reshape(zeros.shape[0], -1) + 1
    group = stored[f"{name}.g_idx"].long()
    return (stored[f"{name}.scales"].float()[group] * (code - zero[group])).T


def test_a_condition_whose_embeddings_do_not_cover_the_tokens_is_left_out(
    models: Models, tmp_path: Path
) -> None:
    from lora_jobs.evaluating.measure import EvaluationSet, NoEntries, Subject, measure
    from lora_jobs.evaluating.windows import Window

    beyond = EvaluationSet("task", [Window(0, (1, 999), (False, True))], {"set": "d"})
    evaluation = measure(
        [Subject(BASE, (models.base,), ("b",))], [beyond], "bfloat16", NoEntries(), lambda p: None
    )
    assert evaluation.scores == []
    assert "320 embeddings" in evaluation.notes[BASE]
    assert QUANTIZED not in evaluation.notes


def with_a_larger_vocabulary(models: Models, folder: Path) -> Path:
    """The merged model with words of its own, as an adapter that adds tokens leaves it."""
    import torch
    from transformers import AutoModelForCausalLM

    from lora_jobs.pretrained import load_tokenizer

    tokenizer = load_tokenizer(models.merged)
    tokenizer.add_tokens(["Record ", "again "])
    model = AutoModelForCausalLM.from_pretrained(models.merged, dtype=torch.bfloat16)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_base_of_an_adapter_with_more_tokens_reads_the_same_text_with_its_own(
    models: Models, tmp_path: Path
) -> None:
    from lora_jobs.evaluating.measure import EvaluationSet, Subject, measure
    from lora_jobs.evaluating.sets import evaluation_set, protocol_of
    from lora_jobs.pretrained import load_tokenizer

    larger = with_a_larger_vocabulary(models, tmp_path / "larger")
    records = read_records(models.texts, name="task")

    def task(model: Path) -> EvaluationSet:
        tokenizer = load_tokenizer(model)
        protocol = protocol_of(model, tokenizer, "bfloat16", 256)
        return evaluation_set("task", records, "d", LossOn.COMPLETIONS, tokenizer, protocol)

    base = Subject(BASE, (models.base,), ("b",))
    subjects = [base, Subject(MERGED, (larger,), ("m",))]
    entries = MemoryOutputs(tmp_path)
    its, looks = task(larger), [distributions_look(task(larger))]
    found = measure(subjects, [its], "bfloat16", entries, lambda p: None, looks)
    seen = {s.condition: s for s in found.scores}
    (alone,) = measure([base], [task(models.base)], "bfloat16", entries, lambda p: None).scores
    assert math.fsum(seen[BASE].nlls) == pytest.approx(math.fsum(alone.nlls), rel=1e-6)
    assert sum(alone.tokens) > sum(seen[BASE].tokens) == its.scored_tokens
    assert "its own tokenizer" in found.notes["ownTokenizer"]
    assert BASE not in found.looked[DISTRIBUTIONS], "their tokens are not alike"
    rows = comparisons_of(found.scores)[comparison("Perplexity/task", BASE, MERGED)]
    nats = math.fsum(alone.nlls) - math.fsum(seen[MERGED].nlls)
    assert float(rows["value"]) == pytest.approx(math.exp(nats / its.scored_tokens), rel=1e-4)
    again = measure(subjects, [its], "bfloat16", entries, lambda p: None, looks)
    assert again.scores == found.scores
    assert again.notes == found.notes
