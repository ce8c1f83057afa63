"""Several adapters are merged as the exact sum of their weighted updates, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_api.jobcontract import Reason, Stage
from lora_jobs.errors import Refused
from lora_jobs.merging import MergeReport, merge_adapters
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
)
from stagecontexts import FolderInputs, MemoryOutputs, digest_of_folder, stage_context

SLACK = 2.0**-20


def merge(folder: Path, *weights: float) -> MergeReport:
    adapters = [(folder / f"adapter{i}", weight) for i, weight in enumerate(weights)]
    return merge_adapters(folder / "base", adapters, folder / "merged", quiet)


def delta(update: dict[str, Array], module: str, scaling: float) -> Array:
    a, b = (update[f"{PREFIX}{module}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    result: Array = scaling * (b @ a)
    return result


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    summands=st.lists(
        st.tuples(st.integers(1, 5), st.floats(0.125, 4, width=16)), min_size=1, max_size=4
    ),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    seed=st.integers(0, 1000),
)
def test_the_merge_is_the_rounded_exact_sum(
    tmp_path_factory: pytest.TempPathFactory,
    summands: list[tuple[int, float]],
    dtype: str,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("sum")
    base = stored(matrix(50, 30, seed), dtype)
    exact, terms = base.copy(), np.abs(base)
    for number, (rank, weight) in enumerate(summands):
        update = lora(Q, 50, 30, rank, seed + number)
        write_adapter(folder / f"adapter{number}", update, r=rank, lora_alpha=3)
        summand = delta(update, Q, weight * 3 / rank)
        exact, terms = exact + summand, terms + np.abs(summand)
    write_base(folder / "base", {f"{Q}.weight": base}, dtype)
    report = merge(folder, *(weight for _, weight in summands))
    merged = read_safetensors(folder / "merged/model.safetensors")[f"{Q}.weight"]
    nearest = stored(exact, dtype)
    off = merged != nearest
    assert (np.abs(merged - exact) <= np.abs(nearest - exact) + SLACK * terms)[off].all()
    rms = np.sqrt(((exact - base) ** 2).sum() / (base**2).sum())
    assert report.delta_to_weights == pytest.approx(rms, rel=1e-4)


def test_layers_that_only_one_adapter_changes_get_that_update(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(6, 4), f"{UP}.weight": matrix(5, 4)})
    write_adapter(tmp_path / "adapter0", lora(Q, 6, 4), base_model_name_or_path="org/a")
    write_adapter(tmp_path / "adapter1", lora(UP, 5, 4), base_model_name_or_path="org/b")
    report = merge(tmp_path, 1, 0.5)
    merged = read_safetensors(tmp_path / "merged/model.safetensors")
    for module, rows, weight in ((Q, 6, 1), (UP, 5, 0.5)):
        exact = matrix(rows, 4) + delta(lora(module, rows, 4), module, 2 * weight)
        np.testing.assert_allclose(merged[f"{module}.weight"], exact, rtol=1e-5)
    assert report.merged == 2
    assert report.notes["trainedOn"] == "org/a, org/b"


NORMS: dict[str, Array] = {f"{PREFIX}{Q}.lora_magnitude_vector": np.ones(6)}
HEAD = {f"{PREFIX}lm_head.weight": matrix(8, 4, 3)}
TOKENS = {f"{PREFIX}lm_head.token_adapter.trainable_tokens_delta": matrix(1, 4)}
Second = tuple[dict[str, Array], dict[str, Any]]
PLAIN: Second = ({}, {})
DORA: Second = (NORMS, {"use_dora": True})
SAVED: Second = (HEAD, {"modules_to_save": ["lm_head"]})
ROWS: Second = (TOKENS, {"trainable_token_indices": [3]})
ON_HEAD: Second = (lora("lm_head", 8, 4), {})
NOT_SUMMED: dict[str, tuple[list[Second], list[float], str]] = {
    "DoRA with another": ([DORA, PLAIN], [1, 1], f"DoRA of {Q}"),
    "another with DoRA": ([PLAIN, DORA], [1, 1], f"DoRA of {Q}"),
    "half a DoRA": ([DORA], [0.5], f"DoRA of {Q}"),
    "half a saved head": ([SAVED], [0.5], "lm_head.weight"),
    "two saved heads": ([SAVED, SAVED], [1, 1], "lm_head.weight"),
    "a saved head and its tokens": ([SAVED, ROWS], [1, 1], "lm_head.weight"),
    "a saved head and its update": ([SAVED, ON_HEAD], [1, 1], "lm_head.weight and an update"),
}


@pytest.mark.parametrize(("adapters", "weights", "says"), NOT_SUMMED.values(), ids=NOT_SUMMED)
def test_what_has_no_exact_sum_is_refused(
    tmp_path: Path, adapters: list[Second], weights: list[float], says: str
) -> None:
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(6, 4), "lm_head.weight": matrix(8, 4)})
    for number, (more, config) in enumerate(adapters):
        write_adapter(tmp_path / f"adapter{number}", lora(Q, 6, 4) | more, **config)
    with pytest.raises(Refused, match="cannot be summed") as caught:
        merge(tmp_path, *weights)
    assert caught.value.reason is Reason.UNSUPPORTED_ADAPTER
    assert says in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_a_saved_head_of_one_adapter_goes_with_the_update_of_another(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(6, 4), "lm_head.weight": matrix(8, 4)})
    write_adapter(tmp_path / "adapter0", lora(Q, 6, 4) | HEAD, modules_to_save=["lm_head"])
    write_adapter(tmp_path / "adapter1", lora(Q, 6, 4))
    merge(tmp_path, 1, 0.5)
    merged = read_safetensors(tmp_path / "merged/model.safetensors")
    assert (merged["lm_head.weight"] == matrix(8, 4, 3)).all()


def test_adapters_of_different_tokenizers_are_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    for number in range(2):
        folder = write_adapter(tmp_path / f"adapter{number}")
        (folder / "tokenizer.json").write_text(f'{{"model": {{"vocab": {{"a": {number}}}}}}}')
    with pytest.raises(Refused, match=r"different tokenizer\.json") as caught:
        merge(tmp_path, 1, 1)
    assert caught.value.reason is Reason.ADAPTER_MISMATCH


def test_the_stage_merges_every_adapter_with_its_weight(tmp_path: Path) -> None:
    from lora_jobs.stages.merge import run

    base = write_base(tmp_path / "base")
    folders = {f"adapter{i}": write_adapter(tmp_path / f"adapter{i}", lora(Q, 6, 4, seed=i))
               for i in range(2)}  # fmt: skip
    (tmp_path / "store").mkdir()
    context = stage_context(
        Stage.MERGE, {"weights": ["0.25", "1"]}, FolderInputs({"base": base, **folders}),
        MemoryOutputs(tmp_path / "store"), tmp_path / "work",
        {"base": "sha256:b", "adapter0": "sha256:a", "adapter1": "sha256:c"}, [],
    )  # fmt: skip
    result = run(context)
    merge(tmp_path, 0.25, 1)
    assert result.digest == digest_of_folder(tmp_path / "merged")


@pytest.mark.model
def test_it_equals_the_adapters_that_peft_runs_together_and_not_its_linear_combination(
    tmp_path: Path,
) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    import peftmodels

    peftmodels.llama().save_pretrained(tmp_path / "base")
    for number in range(2):
        torch.manual_seed(number)
        config = LoraConfig(
            r=2, lora_alpha=3, init_lora_weights=False, target_modules=["q_proj", "down_proj"]
        )
        model = get_peft_model(peftmodels.load(tmp_path / "base").float(), config)
        model.save_pretrained(tmp_path / f"adapter{number}")
    both: Any = PeftModel.from_pretrained(
        peftmodels.load(tmp_path / "base"), tmp_path / "adapter0", adapter_name="first"
    )
    both.load_adapter(tmp_path / "adapter1", adapter_name="second")
    for kind in ("cat", "linear"):
        both.add_weighted_adapter(["first", "second"], [0.5, 2.0], kind, combination_type=kind)
    merge(tmp_path, 0.5, 2.0)
    ours = peftmodels.logits(peftmodels.load(tmp_path / "merged"))
    distance = {}
    for kind in ("cat", "linear"):
        both.set_adapter(kind)
        distance[kind] = torch.dist(peftmodels.logits(both.double()), ours, torch.inf)
    assert distance["cat"] < 1e-5
    assert distance["linear"] > 0.005
