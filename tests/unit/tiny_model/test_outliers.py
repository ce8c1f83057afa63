"""The outlier pair: the same function as its original, with columns that spoil their groups."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from tiny_model.outliers import EXPONENT, outlier_adapter, outlier_base

LAYERS, HEAD_DIM, QUERIES_PER_KEY = 2, 64, 2
Tensors = dict[str, torch.Tensor]


def new_model(tensors: Tensors | None = None) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, head_dim=HEAD_DIM,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if tensors is not None:
        model.load_state_dict(tensors)
    return model.eval()


def with_adapter(base: LlamaForCausalLM, adapter: Tensors | None = None) -> Any:
    targets = ["v_proj", "o_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    if adapter is not None:
        set_peft_model_state_dict(model, adapter)
    return model.eval()


@pytest.fixture(scope="module")
def base() -> Tensors:
    return dict(new_model().state_dict())


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = model(input_ids=torch.arange(48)[None]).logits
    return values


def test_the_outlier_base_computes_the_same(base: Tensors) -> None:
    outliers = outlier_base(base, LAYERS, HEAD_DIM, QUERIES_PER_KEY)
    torch.testing.assert_close(
        logits(new_model(outliers)), logits(new_model(base)), rtol=0, atol=1e-5
    )


def test_the_adapter_of_the_outlier_base_computes_the_same(base: Tensors) -> None:
    original = with_adapter(new_model(base))
    adapter = dict(get_peft_model_state_dict(original))
    shape = (LAYERS, HEAD_DIM, QUERIES_PER_KEY)
    outliers = with_adapter(
        new_model(outlier_base(base, *shape)), outlier_adapter(adapter, base, *shape)
    )
    torch.testing.assert_close(logits(outliers), logits(original), rtol=0, atol=1e-4)
    changed = (logits(original) - logits(new_model(base))).abs().max()
    assert changed > 1e-2, "the adapter does something"


def test_every_group_of_128_has_an_outlier_and_three_of_four_groups_of_32_have_none(
    base: Tensors,
) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    ratio = outlier_base(base, LAYERS, HEAD_DIM, QUERIES_PER_KEY)[name] / base[name]
    is_outlier = (ratio == 2.0**EXPONENT).all(dim=0)
    assert is_outlier.view(-1, 128).any(dim=1).all()
    assert is_outlier.view(-1, 32).any(dim=1).float().mean() == 0.25
