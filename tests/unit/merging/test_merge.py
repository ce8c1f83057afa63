"""The merge is right to the last bit, for every scaling, dtype and sharding."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_api.jobcontract import Progress, Stage
from lora_jobs.merging import merge_adapter
from lora_jobs.store.hashing import hash_file
from mergefiles import (
    UP,
    Q,
    exact_sum,
    lora,
    matrix,
    quiet,
    read_safetensors,
    stored,
    write_adapter,
    write_base,
    write_safetensors,
    write_shards,
)
from stagecontexts import FolderInputs, MemoryOutputs, digest_of_folder, stage_context

V = "model.layers.0.self_attn.v_proj"
SLACK = 2.0**-20
"""Of the sum's largest term: what the two roundings to bf16 may add to half a unit."""


@dataclass(frozen=True)
class Case:
    """A random layer, adapter and configuration."""

    outer: int
    inner: int
    rank: int
    alpha: float
    rslora: bool
    patterned: bool
    dtype: str
    adapter_dtype: str
    seed: int


cases = st.builds(
    Case,
    outer=st.integers(1, 90),
    inner=st.integers(1, 40),
    rank=st.integers(1, 8),
    alpha=st.integers(1, 64) | st.floats(0.25, 64),
    rslora=st.booleans(),
    patterned=st.booleans(),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    adapter_dtype=st.sampled_from(["BF16", "F16", "F32"]),
    seed=st.integers(0, 10_000),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases)
def test_the_merge_is_the_rounded_exact_sum(
    tmp_path_factory: pytest.TempPathFactory, case: Case
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    base = stored(matrix(case.outer, case.inner, case.seed), case.dtype)
    update = {
        name: stored(values, case.adapter_dtype)
        for name, values in lora(Q, case.outer, case.inner, case.rank, case.seed).items()
    }
    config: dict[str, Any] = {"r": case.rank, "lora_alpha": case.alpha, "use_rslora": case.rslora}
    if case.patterned:
        config |= {
            "r": 1000, "rank_pattern": {"q_proj": case.rank},
            "lora_alpha": 1000, "alpha_pattern": {r"layers\.0\..*q_proj": case.alpha},
        }  # fmt: skip
    write_base(folder / "base", {f"{Q}.weight": base}, case.dtype)
    write_adapter(folder / "adapter", update, case.adapter_dtype, **config)
    merge_adapter(folder / "base", folder / "adapter", folder / "merged", quiet)

    exact = exact_sum(base, update, Q, case.alpha, case.rank, case.rslora)
    merged = read_safetensors(folder / "merged/model.safetensors")[f"{Q}.weight"]
    nearest = stored(exact, case.dtype)
    off = merged != nearest
    # Where it is not the nearest value, the exact sum lies in the middle of two, but for SLACK.
    terms = np.abs(base) + np.abs(exact - base)
    assert (np.abs(merged - exact) <= np.abs(nearest - exact) + SLACK * terms)[off].all()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_bits_equal_the_rounded_fp64_sum_on_nearly_all_weights(tmp_path: Path, dtype: str) -> None:
    base, update = stored(matrix(700, 900), dtype), lora(Q, 700, 900, rank=16)
    write_base(tmp_path / "base", {f"{Q}.weight": base}, dtype)
    write_adapter(tmp_path / "adapter", update, r=16, lora_alpha=16)
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    merged = read_safetensors(tmp_path / "merged/model.safetensors")[f"{Q}.weight"]
    oracle = stored(exact_sum(base, update, Q, 16, 16, rslora=False), dtype)
    assert (merged == oracle).mean() >= 0.9999


def test_the_first_pattern_in_the_files_order_decides(tmp_path: Path) -> None:
    """PEFT's `get_pattern_key`: whole ends of the name, first match."""
    alphas = {"proj": 7, r"layers\.1\..*": 9, r".*up_proj": 5, r"mlp.up_proj": 3, "q_proj": 2}
    base = {f"{module}.weight": np.zeros((3, 3), np.float32) for module in (Q, UP, V)}
    update = lora(Q, 3, 3) | lora(UP, 3, 3) | lora(V, 3, 3)
    write_base(tmp_path / "base", base)
    write_adapter(tmp_path / "adapter", update, lora_alpha=1, alpha_pattern=alphas)
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    merged = read_safetensors(tmp_path / "merged/model.safetensors")
    for module, alpha in ((Q, 2), (UP, 5), (V, 1)):
        exact = exact_sum(base[f"{module}.weight"], update, module, alpha, 2, rslora=False)
        np.testing.assert_allclose(merged[f"{module}.weight"], exact, rtol=1e-6)


def test_shards_index_and_untouched_tensors_stay_as_they_are(tmp_path: Path) -> None:
    first = {"model.embed_tokens.weight": matrix(8, 4), f"{Q}.weight": matrix(6, 4)}
    second = {"model.norm.weight": matrix(1, 4)[0], f"{UP}.weight": matrix(5, 4)}
    base = write_shards(tmp_path / "base", first, second)
    # Another layout of the same weights, as Mistral ships it: not in the index, so not the model.
    write_safetensors(base / "consolidated.safetensors", {"tok_embeddings.weight": matrix(8, 4)})
    adapter = write_adapter(tmp_path / "adapter", lora(Q, 6, 4) | lora(UP, 5, 4))
    report = merge_adapter(base, adapter, tmp_path / "merged", quiet)
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = "model.safetensors.index.json"
    assert {p.name for p in (tmp_path / "merged").iterdir()} == {*shards, index, "config.json"}
    assert (tmp_path / "merged" / index).read_bytes() == (base / index).read_bytes()
    for shard, changed in zip(shards, (f"{Q}.weight", f"{UP}.weight"), strict=True):
        before, after = ((f / shard).read_bytes() for f in (base, tmp_path / "merged"))
        size = 8 + int.from_bytes(before[:8], "little")
        assert before[:size] == after[:size]
        old, new = (read_safetensors(f / shard) for f in (base, tmp_path / "merged"))
        assert {name for name in old if (old[name] != new[name]).any()} == {changed}
    assert (report.merged, report.copied) == (2, 2)


def test_the_report_names_every_file_with_its_digest_and_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_jobs.store.hashing.PART_BYTES", 1000)
    monkeypatch.setattr("lora_jobs.merging.blocks.BLOCK_WEIGHTS", 64)
    monkeypatch.setattr("lora_jobs.merging.blocks.COPY_BYTES", 300)
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(200, 4), "x": matrix(50, 7)})
    write_adapter(tmp_path / "adapter", lora(Q, 200, 4))
    merged = tmp_path / "merged"
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", merged, quiet)
    assert report.files == {f.name: hash_file(f) for f in merged.iterdir()}
    assert len(report.files["model.safetensors"].parts) > 4


def test_the_report_says_how_strong_the_update_is(tmp_path: Path) -> None:
    base, update = stored(matrix(300, 200), "BF16"), lora(Q, 300, 200)
    write_base(tmp_path / "base", {f"{Q}.weight": base}, "BF16")
    write_adapter(tmp_path / "adapter", update, lora_alpha=0.002)
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    exact = exact_sum(base, update, Q, 0.002, 2, rslora=False)
    merged = read_safetensors(tmp_path / "merged/model.safetensors")[f"{Q}.weight"]
    rms = np.sqrt(((exact - base) ** 2).mean() / (base**2).mean())
    assert report.delta_to_weights == pytest.approx(rms, rel=1e-4)
    assert report.unchanged_fraction == (merged == base).mean()
    assert 0.1 < report.unchanged_fraction < 0.9
    assert report.message.startswith(f"1 tensors merged, delta is {rms * 100:.2g} % of the weights")


def test_an_adapter_that_changes_nothing_is_said_to(tmp_path: Path) -> None:
    update = {name: values * ("lora_A" in name) for name, values in lora(Q, 6, 4).items()}
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", update, base_model_name_or_path="org/model")
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    assert report.delta_to_weights == 0
    assert report.unchanged_fraction == 1
    assert "the merged model is the base" in report.notes["effect"]
    assert report.notes["trainedOn"] == "org/model"


def test_the_stage_publishes_what_the_merge_made(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    seen: list[Progress] = []
    (tmp_path / "store").mkdir()
    context = stage_context(
        Stage.MERGE, {}, FolderInputs({"base": base, "adapter0": adapter}),
        MemoryOutputs(tmp_path / "store"), tmp_path / "work",
        {"base": "sha256:b", "adapter0": "sha256:a"}, seen,
    )  # fmt: skip
    from lora_jobs.stages.merge import run

    result = run(context)
    merge_adapter(base, adapter, tmp_path / "again", quiet)
    assert result.digest == digest_of_folder(tmp_path / "again")
    assert result.input_hash == context.request.call.input_hash
    assert result.message.startswith("1 tensors merged")
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (96, 96, "bytes")


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
