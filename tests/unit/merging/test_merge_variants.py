"""Variants beyond plain LoRA are right to the last bit, in the formulas of their papers in fp64."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_jobs.merging import MergeReport, merge_adapter
from lora_jobs.weightfiles import tensors_of
from mergefiles import (
    PREFIX,
    UP,
    Array,
    Q,
    lora,
    matrix,
    quiet,
    read_safetensors,
    stored,
    write_adapter,
    write_base,
    write_shards,
)

EMBED, HEAD = "model.embed_tokens", "lm_head"
CONV = "h.0.attn.c_attn"
SLACK = 2.0**-20


def merge(folder: Path) -> MergeReport:
    return merge_adapter(folder / "base", folder / "adapter", folder / "merged", quiet)


def weights(folder: Path, name: str = "merged") -> dict[str, Array]:
    found: dict[str, Array] = {}
    for file in sorted((folder / name).glob("*.safetensors")):
        found |= read_safetensors(file)
    return found


def config(folder: Path) -> Any:
    return json.loads((folder / "merged/config.json").read_text())


def dora(weight: Array, update: dict[str, Array], module: str, scaling: float) -> Array:
    """The DoRA paper's equation 5 for a weight of (out, in), in fp64."""
    a, b = (update[f"{PREFIX}{module}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    direction = weight.astype(np.float64) + scaling * (b @ a)
    magnitude = update[f"{PREFIX}{module}.lora_magnitude_vector"].astype(np.float64)
    norms = np.array([np.sqrt(sum(value**2 for value in row)) for row in direction])
    result: Array = magnitude[:, np.newaxis] * direction / norms[:, np.newaxis]
    return result


def as_embedding(update: dict[str, Array], module: str) -> dict[str, Array]:
    """The same update under an embedding's keys."""
    return {
        f"{PREFIX}{module}.lora_embedding_{side}": update[f"{PREFIX}{module}.lora_{side}.weight"]
        for side in "AB"
    }


@dataclass(frozen=True)
class Layer:
    """A random layer of (outer, inner), the way it is stored, and its update."""

    kind: str
    outer: int
    inner: int
    rank: int
    has_magnitude: bool
    dtype: str
    seed: int

    @property
    def module(self) -> str:
        return {"linear": Q, "conv1d": CONV, "embedding": EMBED}[self.kind]


layers = st.builds(
    Layer,
    kind=st.sampled_from(["linear", "conv1d", "embedding"]),
    outer=st.integers(1, 90),
    inner=st.integers(1, 90),
    rank=st.integers(1, 4),
    has_magnitude=st.booleans(),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    seed=st.integers(0, 10_000),
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers)
def test_every_kind_of_layer_is_the_rounded_exact_result_with_or_without_dora(
    tmp_path_factory: pytest.TempPathFactory, layer: Layer
) -> None:
    folder = tmp_path_factory.mktemp("layer")
    module, is_transposed = layer.module, layer.kind != "linear"
    weight = stored(matrix(layer.outer, layer.inner, layer.seed), layer.dtype)
    update = lora(module, layer.outer, layer.inner, layer.rank, layer.seed)
    exact = weight + 3 / layer.rank * np.matmul(
        update[f"{PREFIX}{module}.lora_B.weight"].astype(np.float64),
        update[f"{PREFIX}{module}.lora_A.weight"].astype(np.float64),
    )
    if layer.has_magnitude:
        magnitude = {f"{PREFIX}{module}.lora_magnitude_vector": matrix(1, layer.outer, 7)[0]}
        exact = dora(weight, update | magnitude, module, 3 / layer.rank)
    keys = as_embedding(update, module) if layer.kind == "embedding" else update
    keys |= magnitude if layer.has_magnitude else {}
    # Not tied, so that the embedding stays the only tensor.
    settings_of = {"model_type": "gpt2", "tie_word_embeddings": False}
    kept = weight.T if is_transposed else weight
    write_base(folder / "base", {f"{module}.weight": kept}, layer.dtype, **settings_of)
    write_adapter(
        folder / "adapter", keys, r=layer.rank, lora_alpha=3, use_dora=layer.has_magnitude
    )
    merge(folder)
    merged = weights(folder)[f"{module}.weight"]
    merged = merged.T if is_transposed else merged
    nearest = stored(exact, layer.dtype)
    off = merged != nearest
    terms = np.abs(weight) + np.abs(exact - weight)
    assert (np.abs(merged - exact) <= np.abs(nearest - exact) + SLACK * terms)[off].all()


@pytest.mark.parametrize("module", [Q, CONV])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_dora_over_many_blocks_is_bit_equal_to_the_rounded_fp64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, dtype: str
) -> None:
    monkeypatch.setattr("lora_jobs.merging.blocks.BLOCK_WEIGHTS", 5000)
    weight = stored(matrix(330, 270), dtype)
    update = lora(module, 330, 270, rank=16)
    update[f"{PREFIX}{module}.lora_magnitude_vector"] = matrix(1, 330, 5)[0] + 16
    write_base(
        tmp_path / "base", {f"{module}.weight": weight.T if module == CONV else weight}, dtype,
        model_type="gpt2",
    )  # fmt: skip
    write_adapter(tmp_path / "adapter", update, r=16, lora_alpha=8, use_dora=True)
    report = merge(tmp_path)
    exact = dora(weight, update, module, 0.5)
    merged = weights(tmp_path)[f"{module}.weight"]
    merged = merged.T if module == CONV else merged
    assert (merged == stored(exact, dtype)).mean() >= 0.9999
    rms = np.sqrt(((exact - weight) ** 2).mean() / (weight**2).mean())
    assert report.delta_to_weights == pytest.approx(rms, rel=1e-4)
    assert report.unchanged_fraction == (merged == weight).mean()


def test_a_row_without_direction_is_refused(tmp_path: Path) -> None:
    """DoRA divides by its norm."""
    update = lora(Q, 6, 4)
    update[f"{PREFIX}{Q}.lora_B.weight"][2] = 0
    weight = matrix(6, 4)
    weight[2] = 0
    update[f"{PREFIX}{Q}.lora_magnitude_vector"] = np.ones(6)
    write_base(tmp_path / "base", {f"{Q}.weight": weight})
    write_adapter(tmp_path / "adapter", update, use_dora=True)
    with pytest.raises(Exception, match="not finite"):
        merge(tmp_path)


def test_fan_in_fan_out_of_an_unknown_model_goes_by_the_shape(tmp_path: Path) -> None:
    weight, update = matrix(6, 4), lora(Q, 6, 4)
    write_base(tmp_path / "base", {f"{Q}.weight": weight.T})
    write_adapter(tmp_path / "adapter", update, fan_in_fan_out=True)
    merge(tmp_path)
    delta = 2 * update[f"{PREFIX}{Q}.lora_B.weight"] @ update[f"{PREFIX}{Q}.lora_A.weight"]
    np.testing.assert_allclose(weights(tmp_path)[f"{Q}.weight"], (weight + delta).T, rtol=1e-5)


def test_files_without_the_models_prefix_are_matched(tmp_path: Path) -> None:
    """The first GPT-2's files say `h.0`, an adapter of it `transformer.h.0`."""
    # A trained bias that ended up where it began.
    bias = {f"{PREFIX}transformer.{CONV}.base_layer.bias": np.ones(6)}
    update = lora(f"transformer.{CONV}", 6, 4) | bias
    tensors = {f"{CONV}.weight": matrix(4, 6), f"{CONV}.bias": np.ones(6)}
    write_base(tmp_path / "base", tensors, model_type="gpt2")
    write_adapter(tmp_path / "adapter", update, bias="lora_only")
    assert merge(tmp_path).merged == 1
    assert list(weights(tmp_path)) == list(tensors)


def test_saved_modules_take_the_place_of_the_bases_rounded_once(tmp_path: Path) -> None:
    saved = {f"{PREFIX}{HEAD}.weight": matrix(8, 4, 3), f"{PREFIX}model.norm.weight": np.ones(4)}
    tensors = {f"{Q}.weight": matrix(6, 4), f"{EMBED}.weight": matrix(8, 4)}
    tensors |= {f"{HEAD}.weight": matrix(8, 4, 2), "model.norm.weight": np.zeros(4)}
    write_base(tmp_path / "base", tensors, "BF16")
    update = lora(Q, 6, 4) | saved
    write_adapter(tmp_path / "adapter", update, modules_to_save=["lm_head", "norm"])
    report = merge(tmp_path)
    merged = weights(tmp_path)
    assert (merged[f"{HEAD}.weight"] == stored(matrix(8, 4, 3), "BF16")).all()
    assert (merged["model.norm.weight"] == 1).all()
    assert (merged[f"{EMBED}.weight"] == stored(matrix(8, 4), "BF16")).all()
    assert (report.merged, report.copied) == (3, 1)


def test_trainable_tokens_replace_their_rows_and_no_others(tmp_path: Path) -> None:
    rows = matrix(2, 4, 9)
    update = {f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": rows}
    base = matrix(40, 4)
    write_base(tmp_path / "base", {f"{EMBED}.weight": base}, "BF16")
    write_adapter(tmp_path / "adapter", update, trainable_token_indices=[33, 5])
    report = merge(tmp_path)
    expected = stored(base, "BF16")
    expected[[33, 5]] = stored(rows, "BF16")
    assert (weights(tmp_path)[f"{EMBED}.weight"] == expected).all()
    assert report.unchanged_fraction == 38 / 40
    assert "untied" not in report.notes


def test_trained_biases_and_lora_bias_are_added_up(tmp_path: Path) -> None:
    update = lora(Q, 6, 4) | {
        f"{PREFIX}{Q}.lora_B.bias": matrix(1, 6, 3)[0],
        f"{PREFIX}{Q}.base_layer.bias": matrix(1, 6, 4)[0],
        f"{PREFIX}{UP}.bias": matrix(1, 5, 5)[0],
    }
    tensors = {f"{Q}.weight": matrix(6, 4), f"{Q}.bias": np.zeros(6), f"{UP}.bias": np.zeros(5)}
    # A mask of an old file, which is no bias.
    write_base(tmp_path / "base", tensors | {"h.0.attn.bias": np.ones((1, 1, 3, 3))})
    write_adapter(tmp_path / "adapter", update, bias="all", lora_bias=True)
    merge(tmp_path)
    merged = weights(tmp_path)
    exact = update[f"{PREFIX}{Q}.base_layer.bias"] + 2 * update[f"{PREFIX}{Q}.lora_B.bias"]
    np.testing.assert_allclose(merged[f"{Q}.bias"], exact, rtol=1e-6)
    assert (merged[f"{UP}.bias"] == update[f"{PREFIX}{UP}.bias"]).all()


def tied_base(folder: Path) -> Path:
    """Two files; the embedding lies in the first, before a layer."""
    first = {f"{EMBED}.weight": matrix(8, 4), f"{Q}.weight": matrix(6, 4)}
    return write_shards(folder, first, {f"{UP}.weight": matrix(5, 4)})


def test_a_head_that_is_untied_stands_in_header_index_and_config(tmp_path: Path) -> None:
    base = tied_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", as_embedding(lora(EMBED, 4, 8), EMBED))
    report = merge(tmp_path)
    before, merged = weights(tmp_path, "base"), weights(tmp_path)
    assert (merged[f"{HEAD}.weight"] == before[f"{EMBED}.weight"]).all()
    assert (merged[f"{EMBED}.weight"] != before[f"{EMBED}.weight"]).any()
    for name in (f"{Q}.weight", f"{UP}.weight"):
        assert (merged[name] == before[name]).all()
    assert config(tmp_path) == {"vocab_size": 8, "tie_word_embeddings": False}
    found = tensors_of(tmp_path / "merged")
    index = json.loads((tmp_path / "merged/model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: tensor.file.name for name, tensor in found.items()}
    assert index["weight_map"][f"{HEAD}.weight"] == "model-00001-of-00002.safetensors"
    assert index["metadata"]["total_size"] == sum(tensor.size for tensor in found.values())
    assert "lm_head.weight has weights of its own" in report.notes["untied"]
    # The file that has nothing new keeps its header.
    second = "model-00002-of-00002.safetensors"
    assert (base / second).read_bytes() == (tmp_path / "merged" / second).read_bytes()


def test_the_copy_of_an_embedding_that_peft_saves_along_changes_nothing(tmp_path: Path) -> None:
    tied_base(tmp_path / "base")
    copy = {f"{PREFIX}{HEAD}.base_layer.weight": stored(matrix(8, 4), "BF16")}
    write_adapter(tmp_path / "adapter", lora(HEAD, 8, 4) | copy, "BF16")
    merge(tmp_path)
    before, merged = weights(tmp_path, "base"), weights(tmp_path)
    assert (merged[f"{EMBED}.weight"] == before[f"{EMBED}.weight"]).all()
    assert (merged[f"{HEAD}.weight"] != before[f"{EMBED}.weight"]).any()


@pytest.mark.parametrize("is_said", [True, False])
def test_a_head_that_the_base_holds_twice_is_tied_where_the_config_says_so(
    tmp_path: Path, is_said: bool
) -> None:
    """Then both lie under what is saved of one."""
    tensors = {f"{EMBED}.weight": matrix(8, 4), f"{HEAD}.weight": matrix(8, 4)}
    write_base(tmp_path / "base", tensors, tie_word_embeddings=is_said)
    rows = {f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": matrix(1, 4, 9)}
    write_adapter(tmp_path / "adapter", rows, trainable_token_indices=[3])
    merge(tmp_path)
    merged = weights(tmp_path)
    is_same = (merged[f"{EMBED}.weight"] == merged[f"{HEAD}.weight"]).all()
    assert is_same == is_said
    assert config(tmp_path)["tie_word_embeddings"] is is_said


@pytest.mark.parametrize("rows", [11, 6])
def test_a_resized_vocabulary_stands_in_the_config_with_its_tokenizer(
    tmp_path: Path, rows: int
) -> None:
    tied_base(tmp_path / "base")
    new = matrix(rows, 4, 3)
    update = {f"{PREFIX}{name}.weight": new for name in (EMBED, HEAD)}
    adapter = write_adapter(tmp_path / "adapter", lora(Q, 6, 4) | update)
    tokenizer = {"model": {"vocab": {"a": 0, "new": rows - 1}}}
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    report = merge(tmp_path)
    merged = weights(tmp_path)
    assert (merged[f"{EMBED}.weight"] == stored(new, "BF16")).all()
    assert f"{HEAD}.weight" not in merged
    assert config(tmp_path) == {"vocab_size": rows}
    assert tensors_of(tmp_path / "merged")[f"{EMBED}.weight"].shape == (rows, 4)
    assert report.notes["vocabulary"].startswith(f"{rows} rows")


def test_a_vision_models_text_part_says_what_changed(tmp_path: Path) -> None:
    name = "model.language_model.embed_tokens"
    text = {"vocab_size": 8, "tie_word_embeddings": True}
    write_base(tmp_path / "base", {f"{name}.weight": matrix(8, 4)}, text_config=text)
    write_adapter(tmp_path / "adapter", as_embedding(lora(name, 4, 8), name))
    merge(tmp_path)
    assert config(tmp_path)["text_config"]["tie_word_embeddings"] is False
    assert config(tmp_path)["tie_word_embeddings"] is False
