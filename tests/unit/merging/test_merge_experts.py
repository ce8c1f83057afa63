"""Updates of all experts at once come out expert by expert, in the files' own layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging import merge_adapter
from lora_jobs.merging.experts import parameter_of
from mergefiles import (
    PREFIX,
    Array,
    lora,
    matrix,
    quiet,
    read_safetensors,
    stored,
    write_adapter,
    write_base,
)

EXPERTS, HIDDEN, INNER, RANK = 3, 8, 5, 2
MODULE = "model.layers.0.mlp.experts"
TARGETS: dict[str, Any] = {
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
}
LAYOUTS = {
    "qwen3_moe": (MODULE, "gate_proj", "up_proj", "down_proj"),
    "mixtral": ("model.layers.0.block_sparse_moe.experts", "w1", "w3", "w2"),
}


def base_of(layout: str) -> dict[str, Array]:
    prefix, gate, up, down = LAYOUTS[layout]
    tensors = {}
    for expert in range(EXPERTS):
        for seed, (part, shape) in enumerate(
            ((gate, (INNER, HIDDEN)), (up, (INNER, HIDDEN)), (down, (HIDDEN, INNER)))
        ):
            tensors[f"{prefix}.{expert}.{part}.weight"] = matrix(*shape, seed=expert * 3 + seed)
    return tensors


def update_of() -> dict[str, Array]:
    """As PEFT saves both parameters: gate_up_proj inside, down_proj around it."""
    return {
        f"{PREFIX}{MODULE}.base_layer.lora_A.weight": matrix(EXPERTS * RANK, HIDDEN, 20),
        f"{PREFIX}{MODULE}.base_layer.lora_B.weight": matrix(2 * INNER, EXPERTS * RANK, 21),
        f"{PREFIX}{MODULE}.lora_A.weight": matrix(EXPERTS * RANK, INNER, 22),
        f"{PREFIX}{MODULE}.lora_B.weight": matrix(HIDDEN, EXPERTS * RANK, 23),
    }


def deltas(update: dict[str, Array], nesting: str) -> Array:
    """(experts, out, in), as PEFT's ParamWrapper defines it; alpha / r is 2."""
    a, b = (update[f"{PREFIX}{MODULE}{nesting}.lora_{side}.weight"] for side in "AB")
    by_expert = a.astype(np.float64).reshape(EXPERTS, RANK, -1)
    interleaved = b.astype(np.float64).reshape(len(b), RANK, EXPERTS)
    result: Array = 2 * np.einsum("ore,eri->eoi", interleaved, by_expert)
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_every_expert_gets_its_part_rounded_once(tmp_path: Path, layout: str, dtype: str) -> None:
    prefix, gate, up, down = LAYOUTS[layout]
    base, update = base_of(layout), update_of()
    write_base(tmp_path / "base", base, dtype)
    write_adapter(tmp_path / "adapter", update, **TARGETS)
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    merged = read_safetensors(tmp_path / "merged/model.safetensors")
    inside, outside = deltas(update, ".base_layer"), deltas(update, "")
    for expert in range(EXPERTS):
        parts = {gate: inside[expert, :INNER], up: inside[expert, INNER:], down: outside[expert]}
        for part, delta in parts.items():
            name = f"{prefix}.{expert}.{part}.weight"
            exact = stored(base[name], dtype) + delta
            assert (merged[name] == stored(exact, dtype)).all(), name
    assert (report.merged, report.copied) == (3 * EXPERTS, 0)


def test_an_adapter_of_single_experts_is_matched_by_their_names(tmp_path: Path) -> None:
    """As PEFT wrote them before transformers 5."""
    name = f"{LAYOUTS['mixtral'][0]}.1.w2"
    write_base(tmp_path / "base", base_of("mixtral"))
    write_adapter(tmp_path / "adapter", lora(name, HIDDEN, INNER))
    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    assert (report.merged, report.copied) == (1, 3 * EXPERTS - 1)


FUSED: dict[str, Array] = {
    f"{MODULE}.gate_up_proj": np.ones((EXPERTS, 2 * INNER, HIDDEN)),
    f"{MODULE}.down_proj": np.ones((EXPERTS, HIDDEN, INNER)),
}
FOURTH: dict[str, Array] = {
    f"{MODULE}.3.{part}.weight": matrix(*shape)
    for part, shape in (
        ("gate_proj", (INNER, HIDDEN)), ("up_proj", (INNER, HIDDEN)), ("down_proj", (HIDDEN, INNER))
    )
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Array], dict[str, Any], Reason, str]] = {
    "files of fused experts": (FUSED, TARGETS, Reason.UNSUPPORTED_ADAPTER, "one matrix for each"),
    "a base of more experts": (
        base_of("qwen3_moe") | FOURTH, TARGETS, Reason.UNSUPPORTED_ADAPTER, "of 3 experts",
    ),
    "a base of fewer experts": (
        {n: t for n, t in base_of("qwen3_moe").items() if ".2." not in n}, TARGETS,
        Reason.ADAPTER_MISMATCH, "experts.2.gate_proj.weight, which the base does not have",
    ),
    "experts of another size": (
        base_of("qwen3_moe") | {f"{MODULE}.1.up_proj.weight": matrix(4, HIDDEN)}, TARGETS,
        Reason.ADAPTER_MISMATCH, "is [4, 8] in the base, and [5, 8] in the adapter",
    ),
    "no experts announced": (
        base_of("qwen3_moe"), {}, Reason.UNSUPPORTED_ADAPTER, "target_parameters",
    ),
    "one of two announced": (
        base_of("qwen3_moe"), {"target_parameters": ["experts.down_proj"]},
        Reason.UNSUPPORTED_ADAPTER, "target_parameters",
    ),
    "another parameter": (
        base_of("qwen3_moe"), {"target_parameters": [*TARGETS["target_parameters"], "gate.weight"]},
        Reason.UNSUPPORTED_ADAPTER, "updates gate.weight",
    ),
    "a rank that does not divide": (
        base_of("qwen3_moe"), TARGETS | {"r": 4}, Reason.INVALID_INPUT, "rank 4 for each expert",
    ),
    "no list": (
        base_of("qwen3_moe"), {"target_parameters": "down_proj"}, Reason.INVALID_INPUT, "no list",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("base", "config", "reason", "says"), REFUSED.values(), ids=REFUSED)
def test_experts_that_do_not_fit_are_refused(
    tmp_path: Path, base: dict[str, Array], config: dict[str, Any], reason: Reason, says: str
) -> None:
    write_base(tmp_path / "base", base)
    write_adapter(tmp_path / "adapter", update_of(), **config)
    with pytest.raises(Refused) as caught:
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    assert caught.value.reason is reason
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("nesting", "targets", "parameter"),
    [
        ("", ["experts.down_proj"], "down_proj"),
        ("", ["experts.gate_up_proj"], "gate_up_proj"),
        ("", ["experts.down_proj", "gate_up_proj"], "down_proj"),
        (".base_layer", ["down_proj", "experts.gate_up_proj"], "gate_up_proj"),
        (".base_layer", ["down_proj"], None),
        (".base_layer.base_layer", ["down_proj", "gate_up_proj"], None),
        ("", ["layers.1.mlp.experts.down_proj"], None),
        ("", [], None),
    ],
)
def test_the_parameter_wrapped_last_is_the_outer_layer(
    nesting: str, targets: list[str], parameter: str | None
) -> None:
    expected = parameter and f"{MODULE}.{parameter}"
    assert parameter_of(f"{MODULE}{nesting}", targets) == expected
