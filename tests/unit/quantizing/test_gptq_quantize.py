"""GPTQ on a random Llama of two layers: equal bytes, nothing leaked, 16 bit where it belongs."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptq_oracle import gptq, layer_error, rtn, unpack
from lora_api.gates import modules_row
from lora_api.jobcontract import Progress, Reason
from lora_jobs.datasets.records import RecordSet, read_records
from lora_jobs.errors import Refused
from lora_jobs.quantizing.rows import rows_for_model
from lora_jobs.weightfiles import tensors_of, weights_bytes
from roundedmodel import divergence, log_probabilities, round_to_nearest
from stagecontexts import digest_of_folder
from tinyllama import sentences, write_llama, write_texts

pytestmark = pytest.mark.model

GROUP_SIZE = 32


def quantized(
    model: Path, rows: list[list[int]], output: Path, damping: str = "0.05"
) -> tuple[Any, list[Progress]]:
    from lora_jobs.quantizing.lowbits import quantize_model

    seen: list[Progress] = []
    report = quantize_model(
        model, rows, output, bits=4, group_size=GROUP_SIZE, damping=damping, progress=seen.append
    )
    return report, seen


@pytest.fixture(scope="module")
def artifact(model: Path, rows: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "quantized"
    quantized(model, rows, folder)
    return folder


def test_equal_inputs_give_equal_digests_and_other_inputs_do_not(
    model: Path, rows: list[list[int]], artifact: Path, tmp_path: Path
) -> None:
    quantized(model, rows, tmp_path / "again" / "quantized")
    assert digest_of_folder(tmp_path / "again" / "quantized") == digest_of_folder(artifact)
    quantized(model, rows[:8], tmp_path / "other" / "quantized")
    assert digest_of_folder(tmp_path / "other" / "quantized") != digest_of_folder(artifact)


def test_no_file_holds_calibration_text_token_ids_or_paths(
    artifact: Path, rows: list[list[int]], marker: str, tmp_path: Path
) -> None:
    ids = ", ".join(map(str, rows[0][:8]))
    packed = ",".join(map(str, rows[0][:8]))
    for file in artifact.rglob("*"):
        content = file.read_bytes()
        for leak in (marker, ids, packed, "/tmp/", "gptq-", str(tmp_path.parent)):
            assert leak.encode() not in content, (file.name, leak)


def test_embeddings_norms_and_head_keep_their_bytes(model: Path, artifact: Path) -> None:
    before, after = tensors_of(model), tensors_of(artifact)
    kept = before.keys() & after.keys()
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= kept
    for name in kept:
        assert _bytes(after[name]) == _bytes(before[name]), name
    gone = before.keys() - after.keys()
    assert {f"{n.removesuffix('.weight')}.qweight" for n in gone} <= after.keys()
    assert len(gone) == 14


def _bytes(entry: Any) -> bytes:
    with entry.file.open("rb") as file:
        file.seek(entry.offset)
        return bytes(file.read(entry.size))


def test_the_config_says_what_engines_need_and_keeps_the_rest(model: Path, artifact: Path) -> None:
    config = json.loads((artifact / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((model / "config.json").read_text())
    expected = {
        "quant_method": "gptq", "bits": 4, "group_size": GROUP_SIZE, "desc_act": False,
        "sym": True, "lm_head": False,
    }  # fmt: skip
    assert {name: quantization[name] for name in expected} == expected


def test_tokenizer_template_and_generation_config_are_the_models(
    model: Path, artifact: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (artifact / name).read_bytes() == (model / name).read_bytes()


def test_the_report_tells_of_every_module_and_the_progress_of_every_layer(
    model: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    report, seen = quantized(model, rows, tmp_path / "q")
    assert [m.name for m in report.modules if "q_proj" in m.name] == [
        "layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj",
    ]  # fmt: skip
    assert (len(report.modules), report.fallbacks) == (14, ())
    assert report.measurements() == modules_row(14, fallbacks=0, damping_raised=0)
    assert report.loss_outliers == ()
    assert {m.samples for m in report.modules} == {16 * 64} == {report.calibration_tokens}
    assert [(p.done, p.total, p.unit) for p in seen] == [(1, 2, "layers"), (2, 2, "layers")]
    # 4 bits, per group a 16-bit scale and a 4-bit zero point, per input column an index.
    assert 4 + 20 / GROUP_SIZE < report.bits_per_weight < 5
    assert weights_bytes(tmp_path / "q") < weights_bytes(model)


def test_a_module_that_gptqmodel_rounds_to_nearest_is_counted_in_its_own_words(
    model: Path, rows: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q4: as where too few tokens reach a module."""
    import gptqmodel.utils.fallback

    monkeypatch.setattr(gptqmodel.utils.fallback, "should_use_fallback", lambda *_: True)
    report, _ = quantized(model, rows, tmp_path / "q")
    assert report.measurements() == modules_row(14, fallbacks=14, damping_raised=0)
    assert "rounded to nearest without calibration: 14 (layers.0." in report.message()


def test_a_module_that_needs_more_damping_is_counted(
    model: Path, rows: list[list[int]], tmp_path: Path
) -> None:
    """Q4: one row, fewer tokens than a layer has inputs, and next to no damping."""
    report, _ = quantized(model, rows[:1], tmp_path / "q", damping="0.0000000001")
    assert report.damping_raised


def test_a_shape_that_does_not_divide_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from lora_jobs.quantizing.lowbits import quantize_model

    model = write_llama(tmp_path / "odd", intermediate=288)
    with pytest.raises(Refused, match=r"down_proj has 288") as refused:
        quantize_model(
            model, [[1] * 16], tmp_path / "q", bits=4, group_size=64, damping="0.05",
            progress=lambda p: None,
        )  # fmt: skip
    assert refused.value.reason is Reason.INVALID_INPUT
    assert not (tmp_path / "q").exists()


def test_rows_longer_than_the_models_positions_are_refused(model: Path, tmp_path: Path) -> None:
    records = read_records(write_texts(tmp_path / "c.jsonl", *sentences(5)))
    with pytest.raises(Refused, match="256 positions"):
        rows_for_model(model, [records], samples=1, sequence_length=512, seed=0)


def test_sources_with_weights_give_their_share_of_the_rows(model: Path, tmp_path: Path) -> None:
    few, many = (
        read_records(write_texts(tmp_path / f"{number}.jsonl", *sentences(count)))
        for number, count in enumerate((30, 120))
    )

    def rows(*sources: RecordSet, samples: int = 10, weights: tuple[str, ...] = ()) -> Any:
        return rows_for_model(
            model, sources, samples=samples, sequence_length=16, seed=0, weights=weights
        )

    assert rows(few, many, weights=("4", "1")) == rows(few, samples=8) + rows(many, samples=2)
    with pytest.raises(Refused, match=r"calibration source 0 has \d+ tokens"):
        rows(few, many, samples=1000, weights=("4", "1"))


def test_the_layers_err_less_than_rounded_ones_on_what_calibration_saw(
    model: Path, rows: list[list[int]], artifact: Path
) -> None:
    """Q1, Q9: the first layer, whose inputs no quantized layer changes, read by the oracle."""
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    layer = loaded.model.layers[0]
    seen: list[Any] = []
    layer.self_attn.q_proj.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].double().flatten(0, 1))
    )
    with torch.no_grad():
        loaded(torch.tensor(rows))
    inputs = torch.cat(seen).numpy()
    hessian = inputs.T @ inputs
    stored = load_file(artifact / "model.safetensors")
    for name in names:
        weight = layer.get_submodule(name).weight.detach().double().numpy()
        parts = {
            key: stored[f"model.layers.0.{name}.{key}"].numpy()
            for key in ("qweight", "qzeros", "scales", "g_idx")
        }
        assert np.all(parts["qzeros"].view(np.uint32) == 0x77777777)
        read = unpack(
            parts["qweight"], parts["qzeros"],
            parts["scales"].astype(np.float64), parts["g_idx"].astype(np.int64),
        )  # fmt: skip
        theirs = layer_error(weight, read.dequantized(), hessian)
        rounded = layer_error(weight, rtn(weight, GROUP_SIZE).dequantized(), hessian)
        ours = layer_error(weight, gptq(weight, hessian, GROUP_SIZE).dequantized(), hessian)
        assert theirs < rounded, name
        assert theirs < 1.25 * ours, name


def test_it_says_more_like_the_merged_model_than_one_that_was_rounded_to_nearest(
    model: Path, rows: list[list[int]], artifact: Path
) -> None:
    """Q9, through all layers, with symmetric groups on both sides."""
    from lora_jobs.evaluating.models import causal_model

    with causal_model(model, "float32") as merged:
        expected = log_probabilities(merged, rows)
        round_to_nearest(merged, GROUP_SIZE, symmetric=True)
        rounded = divergence(expected, log_probabilities(merged, rows))
    with causal_model(artifact, "float32") as loaded:
        ours = divergence(expected, log_probabilities(loaded, rows))
    assert 0 < ours < rounded
