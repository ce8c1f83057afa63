"""The merge is right to the last bit, and refuses by name what it does not know."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lora_api.jobcontract import Progress, Reason
from lora_jobs.errors import Refused
from lora_jobs.merging import merge_adapter
from lora_jobs.merging.tensors import NotFinite, narrow, widen

PREFIX = "base_model.model."
Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"
Tensors = dict[str, Any]


def quiet(_: Progress) -> None:
    """No progress wanted."""


def write_base(folder: Path, tensors: Tensors, **config: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"vocab_size": 8} | config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    return folder


def write_adapter(folder: Path, tensors: Tensors, **config: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    document = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(document))
    return folder


def lora(module: str, outer: int, inner: int, rank: int = 2, seed: int = 0) -> Tensors:
    random = np.random.default_rng(seed)
    return {
        f"{PREFIX}{module}.lora_A.weight": random.normal(size=(rank, inner)).astype(np.float32),
        f"{PREFIX}{module}.lora_B.weight": random.normal(size=(outer, rank)).astype(np.float32),
    }


def weight(outer: int, inner: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(outer, inner)).astype(np.float32)


def bf16(values: Any) -> Any:
    """Rounded to bf16, as the uint16 that the file holds."""
    return narrow(values.astype(np.float32), "BF16").view(np.uint16)


def save_bf16(folder: Path, tensors: Tensors) -> None:
    """safetensors' numpy side has no bf16: write uint16 and correct the header's dtype."""
    file = folder / "model.safetensors"
    save_file({n: bf16(t).reshape(t.shape) for n, t in tensors.items()}, file)
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'"U16"', b'"BF16"')
    header = header.rstrip(b" ")
    header += b" " * (-len(header) % 8)
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    outer=st.integers(1, 40), inner=st.integers(1, 40), rank=st.integers(1, 8),
    alpha=st.floats(0.25, 64), rslora=st.booleans(), patterned=st.booleans(),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_the_merge_is_the_rounded_exact_sum(
    tmp_path_factory: pytest.TempPathFactory,
    outer: int, inner: int, rank: int, alpha: float, rslora: bool, patterned: bool, seed: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("merge")
    base, update = weight(outer, inner, seed), lora(Q, outer, inner, rank, seed + 1)
    config: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "use_rslora": rslora}
    if patterned:
        config |= {"r": 1000, "rank_pattern": {"q_proj": rank}}
    write_base(folder / "base", {f"{Q}.weight": base})
    save_bf16(folder / "base", {f"{Q}.weight": base})
    write_adapter(folder / "adapter", update, **config)
    merge_adapter(folder / "base", folder / "adapter", folder / "merged", quiet)

    a, b = (update[f"{PREFIX}{Q}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    scaling = alpha / (math.sqrt(rank) if rslora else rank)
    start = widen(bf16(base).view(np.uint8), "BF16", base.shape).astype(np.float64)
    exact = start + scaling * (b @ a)
    raw = np.fromfile(folder / "merged/model.safetensors", np.uint8)
    merged = widen(raw[-base.size * 2 :], "BF16", base.shape).astype(np.float64)
    # Half a unit of bf16's last place, and what float32 adds before the rounding.
    magnitude = np.abs(start) + scaling * (np.abs(b) @ np.abs(a))
    assert (np.abs(merged - exact) <= np.abs(exact) * 2.0**-8 + magnitude * 2.0**-20).all()


def test_bits_equal_the_rounded_fp64_result_on_nearly_all_weights(tmp_path: Path) -> None:
    base, update = weight(512, 384), lora(Q, 512, 384, rank=16)
    write_base(tmp_path / "base", {f"{Q}.weight": base})
    save_bf16(tmp_path / "base", {f"{Q}.weight": base})
    write_adapter(tmp_path / "adapter", update, r=16, lora_alpha=16)
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    a, b = (update[f"{PREFIX}{Q}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    start = widen(bf16(base).view(np.uint8), "BF16", base.shape).astype(np.float64)
    oracle = bf16((start + b @ a).astype(np.float32)).reshape(-1)
    raw = np.fromfile(tmp_path / "merged/model.safetensors", np.uint8)
    assert (raw[-base.size * 2 :].view(np.uint16) == oracle).mean() >= 0.9999


def test_untouched_tensors_and_the_header_stay_as_they_are(tmp_path: Path) -> None:
    tensors = {f"{Q}.weight": weight(6, 4), "model.norm.weight": weight(1, 4)[0]}
    write_base(tmp_path / "base", tensors)
    write_adapter(tmp_path / "adapter", lora(Q, 6, 4))
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    merged = load_file(tmp_path / "merged/model.safetensors")
    assert (merged["model.norm.weight"] == tensors["model.norm.weight"]).all()
    assert (report.merged, report.copied) == (1, 1)
    assert {f.path for f in report.files} == {p.name for p in (tmp_path / "merged").iterdir()}


@pytest.mark.model
@pytest.mark.parametrize("tied", [True, False])
def test_it_equals_peft_on_a_whole_model(tmp_path: Path, tied: bool) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    base = LlamaForCausalLM(config).to(torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    adapter = get_peft_model(
        base,
        LoraConfig(
            r=4, lora_alpha=8, use_rslora=True, init_lora_weights=False,
            target_modules=["q_proj", "v_proj", "down_proj"],
            rank_pattern={r"layers.1.mlp.down_proj": 6}, alpha_pattern={"v_proj": 3},
        ),
    )  # fmt: skip
    adapter.save_pretrained(tmp_path / "adapter")
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)

    fresh = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    theirs = PeftModel.from_pretrained(fresh, tmp_path / "adapter").merge_and_unload()
    ours = LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    mine = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        steps = (mine[name].view(torch.int16).int() - tensor.view(torch.int16).int()).abs()
        assert steps.max() <= 1, name
    unmerged = LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    changed = {n for n, t in unmerged.state_dict().items() if not torch.equal(mine[n], t)}
    assert {n.split(".")[-2] for n in changed} == {"q_proj", "v_proj", "down_proj"}


VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "DoRA"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "trainable tokens": ({"trainable_token_indices": [1]}, "trainable tokens"),
    "trained biases": ({"bias": "all"}, "biases"),
    "lora_bias": ({"lora_bias": True}, "lora_bias"),
    "fan_in_fan_out": ({"fan_in_fan_out": True}, "Conv1D"),
    "layer replication": ({"layer_replication": [[0, 1]]}, "layer_replication"),
    "aLoRA": ({"alora_invocation_tokens": [1]}, "aLoRA"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
    "QALoRA": ({"use_qalora": True}, "QALoRA"),
    "target parameters": ({"target_parameters": ["experts"]}, "target_parameters"),
    "another PEFT type": ({"peft_type": "IA3"}, "IA3"),
    "a wrong rank": ({"r": 3}, "rank 3"),
}


@pytest.mark.parametrize(("config", "says"), VARIANTS.values(), ids=VARIANTS.keys())
def test_a_variant_that_is_not_merged_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)})
    write_adapter(tmp_path / "adapter", lora(Q, 6, 4), **config)
    with pytest.raises(Refused, match=says):
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    assert not (tmp_path / "merged").exists()


def foreign_key(update: Tensors) -> None:
    update[f"{PREFIX}{Q}.lora_magnitude_vector"] = np.ones(6, np.float32)


def half_a_pair(update: Tensors) -> None:
    del update[f"{PREFIX}{Q}.lora_B.weight"]


def another_layer(update: Tensors) -> None:
    update |= lora("model.layers.7.self_attn.q_proj", 6, 4)


def another_width(update: Tensors) -> None:
    update |= lora(Q, 6, 5)


def the_head(update: Tensors) -> None:
    update |= lora("lm_head", 6, 4)


def nan(update: Tensors) -> None:
    update[f"{PREFIX}{Q}.lora_A.weight"][0, 0] = np.nan


BROKEN: dict[str, tuple[Callable[[Tensors], None], Reason, str]] = {
    "a key that it does not know": (foreign_key, Reason.UNSUPPORTED_ADAPTER, "magnitude"),
    "half a pair": (half_a_pair, Reason.INVALID_INPUT, "only one of"),
    "a layer that the base lacks": (another_layer, Reason.ADAPTER_MISMATCH, "layers.7"),
    "another width": (another_width, Reason.ADAPTER_MISMATCH, r"\[6, 4\] in the base"),
    "the head": (the_head, Reason.UNSUPPORTED_ADAPTER, "lm_head"),
    "NaN": (nan, Reason.INVALID_INPUT, "not finite"),
}


@pytest.mark.parametrize(("change", "reason", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_an_adapter_is_refused_with(
    tmp_path: Path, change: Callable[[Tensors], None], reason: Reason, says: str
) -> None:
    update = lora(Q, 6, 4)
    change(update)
    write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)})
    write_adapter(tmp_path / "adapter", update)
    with pytest.raises(Refused, match=says) as refusal:
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    assert refusal.value.reason is reason
    assert not list(tmp_path.glob("merged*"))


def test_weights_that_are_only_there_as_pickle_are_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)})
    folder = write_adapter(tmp_path / "adapter", lora(Q, 6, 4))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(Refused) as refusal:
        merge_adapter(tmp_path / "base", folder, tmp_path / "merged", quiet)
    assert refusal.value.reason is Reason.UNSAFE_FILE


@pytest.mark.parametrize("cut", [4, 40, 200])
def test_a_truncated_base_is_refused(tmp_path: Path, cut: int) -> None:
    base = write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)})
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    write_adapter(tmp_path / "adapter", lora(Q, 6, 4))
    with pytest.raises(Refused):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged", quiet)


def test_code_of_the_model_never_travels(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)})
    (base / "modeling_evil.py").write_text("boom")
    (base / "pytorch_model.bin").write_bytes(b"boom")
    adapter = write_adapter(tmp_path / "adapter", lora(Q, 6, 4))
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    names = {p.name for p in (tmp_path / "merged").iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}


def test_a_model_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)}, auto_map={"AutoModel": "x"})
    adapter = write_adapter(tmp_path / "adapter", lora(Q, 6, 4))
    with pytest.raises(Refused, match="auto_map"):
        merge_adapter(base, adapter, tmp_path / "merged", quiet)


def test_the_adapters_own_tokenizer_wins_and_must_fit(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {f"{Q}.weight": weight(6, 4)})
    adapter = write_adapter(tmp_path / "adapter", lora(Q, 6, 4))
    own = {"model": {"vocab": {"a": 0, "b": 7}}}
    (adapter / "tokenizer.json").write_text(json.dumps(own))
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    assert json.loads((tmp_path / "merged/tokenizer.json").read_text()) == own
    (adapter / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"b": 8}}}))
    with pytest.raises(Refused, match="8 embeddings"):
        merge_adapter(base, adapter, tmp_path / "again", quiet)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_rounds_to_nearest_even_or_says_that_it_does_not_fit(value: float) -> None:
    import torch

    theirs = torch.tensor(value, dtype=torch.float32).to(torch.bfloat16)
    try:
        raw = narrow(np.array([value], np.float32), "BF16")
    except NotFinite:
        assert torch.isinf(theirs)
        return
    assert float(widen(raw, "BF16", (1,))[0]) == float(theirs)


def test_fp16_that_overflows_is_refused() -> None:
    with pytest.raises(NotFinite):
        narrow(np.array([70000.0], np.float32), "F16")
