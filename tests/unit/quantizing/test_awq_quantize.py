"""AWQ on a random Llama of two layers: its layout, what stays in 16 bits, and that it loads."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_api.jobcontract import Progress
from lora_api.spec import QuantizationMethod
from lora_jobs.weightfiles import tensors_of, weights_bytes
from roundedmodel import divergence, log_probabilities, round_to_nearest
from stagecontexts import digest_of_folder

pytestmark = pytest.mark.model

GROUP_SIZE = 32
COLUMN_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)
"""AWQ's order: the lowest four bits of a word are column 0, the next ones column 2, ..."""


def quantized(model: Path, rows: list[list[int]], output: Path) -> tuple[Any, list[Progress]]:
    from lora_jobs.quantizing.lowbits import quantize_model

    seen: list[Progress] = []
    report = quantize_model(
        model, rows, output, method=QuantizationMethod.AWQ, bits=4, group_size=GROUP_SIZE,
        damping="", progress=seen.append,
    )  # fmt: skip
    return report, seen


Made = tuple[Path, Any, list[Progress]]


@pytest.fixture(scope="module")
def made(model: Path, rows: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("first") / "quantized"
    return folder, *quantized(model, rows, folder)


@pytest.fixture(scope="module")
def artifact(made: Made) -> Path:
    return made[0]


def test_equal_inputs_give_equal_digests(
    model: Path, rows: list[list[int]], artifact: Path, tmp_path: Path
) -> None:
    quantized(model, rows, tmp_path / "again")
    assert digest_of_folder(tmp_path / "again") == digest_of_folder(artifact)


def test_no_file_holds_calibration_text_or_paths(artifact: Path, marker: str) -> None:
    for file in artifact.rglob("*"):
        for leak in (marker, "/tmp/", "gptq-"):
            assert leak.encode() not in file.read_bytes(), (file.name, leak)


def test_the_config_says_what_engines_need_and_keeps_the_rest(model: Path, artifact: Path) -> None:
    config = json.loads((artifact / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((model / "config.json").read_text())
    expected = {
        "quant_method": "awq", "bits": 4, "group_size": GROUP_SIZE, "zero_point": True,
        "version": "gemm", "lm_head": False,
    }  # fmt: skip
    assert {name: quantization[name] for name in expected} == expected
    assert None not in quantization["meta"].values()


def test_embeddings_and_head_keep_their_bytes_and_the_layers_are_packed(
    model: Path, artifact: Path
) -> None:
    before, after = tensors_of(model), tensors_of(artifact)
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert _bytes(after[name]) == _bytes(before[name]), name
    gone = before.keys() - after.keys()
    assert {f"{n.removesuffix('.weight')}.qweight" for n in gone} <= after.keys()
    assert len(gone) == 14
    assert weights_bytes(artifact) < weights_bytes(model)


def _bytes(entry: Any) -> bytes:
    with entry.file.open("rb") as file:
        file.seek(entry.offset)
        return bytes(file.read(entry.size))


def test_the_report_counts_layers_that_no_scale_was_searched_for(made: Made) -> None:
    _, report, seen = made
    assert (len(report.modules), report.fallbacks, report.damping_raised) == (14, (), ())
    # Two query heads share a key head here, so no scale can be moved from o_proj into v_proj.
    assert report.notes()["unscaled"] == (
        "2 (layers.0.self_attn.o_proj, layers.1.self_attn.o_proj)"
    )
    assert "dampingRaised" not in report.notes()
    assert report.measurements() == {}, "so that gates on fallbacks do not apply"
    assert [(p.done, p.total) for p in seen] == [(1, 2), (2, 2)]
    assert 4 + 20 / GROUP_SIZE <= report.bits_per_weight < 5


def test_layers_are_read_in_awq_s_own_order_and_widen_to_the_same(artifact: Path) -> None:
    """Q1: nibbles 0, 2, 4, 6, 1, 3, 5, 7 along the outputs, zero points as they are."""
    import numpy as np
    from safetensors.torch import load_file

    from lora_jobs.evaluating.models import causal_model

    stored = load_file(artifact / "model.safetensors")
    with causal_model(artifact, "bfloat16") as loaded:
        for name in ("self_attn.q_proj", "mlp.down_proj"):
            parts = {
                key: stored[f"model.layers.1.{name}.{key}"].float().numpy()
                if key == "scales"
                else _nibbles(stored[f"model.layers.1.{name}.{key}"].numpy())
                for key in ("qweight", "qzeros", "scales")
            }
            groups = np.arange(len(parts["qweight"])) // GROUP_SIZE
            expected = (parts["qweight"] - parts["qzeros"][groups]) * parts["scales"][groups]
            weight = loaded.model.layers[1].get_submodule(name).weight.float().numpy()
            np.testing.assert_allclose(weight, expected.T, rtol=2**-7, atol=1e-6)


def _nibbles(words: Any) -> Any:
    import numpy as np

    shifts = np.arange(8, dtype=np.uint32) * 4
    codes = (words.view(np.uint32)[:, :, None] >> shifts) & 15
    natural = np.empty_like(codes)
    natural[:, :, list(COLUMN_OF_NIBBLE)] = codes
    return natural.reshape(len(words), -1).astype(np.int64)


def test_it_says_more_like_the_merged_model_than_one_that_was_rounded_to_nearest(
    model: Path, rows: list[list[int]], artifact: Path
) -> None:
    """Q9, with asymmetric groups on both sides."""
    from lora_jobs.evaluating.models import causal_model

    with causal_model(model, "float32") as merged:
        expected = log_probabilities(merged, rows)
        round_to_nearest(merged, GROUP_SIZE, symmetric=False)
        rounded = divergence(expected, log_probabilities(merged, rows))
    with causal_model(artifact, "float32") as loaded:
        ours = divergence(expected, log_probabilities(loaded, rows))
    assert 0 < ours < rounded
