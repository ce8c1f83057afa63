"""Adapters that QLoRA trained are merged into the base that they were trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_api.jobcontract import Reason
from lora_api.spec import BaseWeights
from lora_jobs.errors import Refused
from lora_jobs.merging import MergeReport, merge_adapters
from lora_jobs.merging.nf4 import CODES, largest_magnitudes, stored_scales, through_nf4
from mergefiles import (
    UP,
    Array,
    lora,
    matrix,
    quiet,
    read_safetensors,
    stored,
    write_adapter,
    write_base,
)
from tinyllama import sentences, write_llama, write_lora

NF4 = BaseWeights.DEQUANTIZED_NF4


def by_bitsandbytes(weights: Array) -> Array:
    """A bf16 matrix through the NF4 of the library that QLoRA is trained with."""
    from bitsandbytes import functional

    original = torch.from_numpy(weights).to(torch.bfloat16)
    codes, state = functional.quantize_4bit(
        original, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    wide: Array = functional.dequantize_4bit(codes, state).float().numpy()
    return wide


def by_us(weights: Array) -> Array:
    single = weights.astype(np.float32)
    return stored(through_nf4(single, stored_scales(largest_magnitudes(single))), "BF16")


@pytest.mark.parametrize("shape", [(64, 64), (11, 128), (300, 512)])
def test_weights_go_through_nf4_as_bitsandbytes_sends_them(shape: tuple[int, int]) -> None:
    weights = stored(matrix(*shape, seed=3) * 0.02, "BF16").astype(np.float32)
    theirs = by_bitsandbytes(weights)
    ours = by_us(weights)
    assert np.mean(ours == theirs) > 0.999, "a scale in a thousand may fall on the other side"
    assert np.abs(ours - theirs).max() < np.abs(weights).max() / 50


def test_a_block_of_zeros_stays_zero_and_a_code_is_its_own_nearest() -> None:
    weights = np.zeros((1, 128), np.float32)
    weights[0, 64:80] = CODES
    assert not by_us(weights)[0, :64].any()
    assert np.abs(by_us(weights)[0, 64:80] - CODES).max() < 0.02


def merged(folder: Path, base_weights: BaseWeights = NF4) -> tuple[MergeReport, dict[str, Array]]:
    output = folder / f"merged-{base_weights}"
    report = merge_adapters(
        folder / "base", [(folder / "adapter", 1.0)], output, quiet, base_weights
    )
    return report, read_safetensors(output / "model.safetensors")


def test_every_linear_layer_goes_through_nf4_and_nothing_else_does(tmp_path: Path) -> None:
    write_llama(tmp_path / "base")
    write_lora(tmp_path / "base", tmp_path / "adapter")
    _, found = merged(tmp_path)
    base = read_safetensors(tmp_path / "base/model.safetensors")
    _, plain = merged(tmp_path, BaseWeights.ORIGINAL)
    for name, before in base.items():
        is_linear = before.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
        if not is_linear:
            assert np.array_equal(found[name], plain[name]), name
        elif np.array_equal(plain[name], before):  # no adapter targets it
            assert np.mean(found[name] == by_us(before)) == 1.0, name
        else:
            delta = plain[name] - before
            assert np.abs(found[name] - by_us(before) - delta).max() < 0.01, name


def test_the_merged_model_says_what_the_adapter_said_while_it_was_trained(tmp_path: Path) -> None:
    """On Transformers' own 4-bit layers with PEFT beside them; the 16-bit merge is farther off."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    base = write_llama(tmp_path / "base")
    write_lora(base, tmp_path / "adapter")
    for weights in BaseWeights:
        merged(tmp_path, weights)
    ids = AutoTokenizer.from_pretrained(base)(sentences(1)[0], return_tensors="pt")["input_ids"]

    def says(model: Any) -> Any:
        with torch.no_grad():
            return torch.log_softmax(model.eval()(input_ids=ids).logits.float(), -1)

    def plain(weights: BaseWeights) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            tmp_path / f"merged-{weights}", dtype=torch.bfloat16
        )

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    trained_on = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    expected = says(PeftModel.from_pretrained(trained_on, tmp_path / "adapter"))

    def divergence(weights: BaseWeights) -> float:
        other = says(plain(weights))
        return float((expected.exp() * (expected - other)).sum(-1).mean())

    assert divergence(NF4) < divergence(BaseWeights.ORIGINAL) / 5


REFUSED: dict[str, tuple[dict[str, Array], dict[str, Any], str]] = {
    "rows that are no whole blocks": ({f"{UP}.weight": matrix(64, 100)}, {}, "no multiple of 64"),
    "experts": (
        {f"{UP}.weight": matrix(64, 64), "model.layers.0.mlp.experts.0.up.weight": matrix(64, 64)},
        {}, "belongs to experts",
    ),
    "Conv1D": ({f"{UP}.weight": matrix(64, 64)}, {"model_type": "gpt2"}, "Conv1D layers"),
}  # fmt: skip


@pytest.mark.parametrize(("tensors", "config", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_where_it_is_not_sure_what_was_in_4_bits_it_is_refused(
    tmp_path: Path, tensors: dict[str, Array], config: dict[str, Any], said: str
) -> None:
    write_base(tmp_path / "base", tensors, **config)
    columns = tensors[f"{UP}.weight"].shape[1]
    write_adapter(tmp_path / "adapter", lora(UP, 64, columns))
    with pytest.raises(Refused, match=said) as caught:
        merged(tmp_path)
    assert caught.value.reason is Reason.UNSUPPORTED_ADAPTER
    assert "baseWeights: Original" in str(caught.value)
