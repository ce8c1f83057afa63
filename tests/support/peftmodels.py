"""Random models of a few kilobytes and adapters of every kind that PEFT writes, as files.

Imports torch, transformers and peft: for tests marked `model`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

VOCABULARY = 20
Model = Any


def llama(tied: bool = False) -> Model:
    """One layer with biases in its attention; no layer is square but q_proj and o_proj."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, attention_bias=True,
            tie_word_embeddings=tied,
        )
    )  # fmt: skip


def tied_llama() -> Model:
    """The same with one tensor for embedding and head."""
    return llama(tied=True)


def gpt2() -> Model:
    """One layer of Conv1D, c_proj square; tied, as GPT-2 always is."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=32,
        tie_word_embeddings=True,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def mixtral() -> Model:
    """Three experts, saved as block_sparse_moe.experts.N.w1, w2 and w3; untied."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3,
        tie_word_embeddings=False,
    )  # fmt: skip
    return MixtralForCausalLM(config)


def qwen3_moe() -> Model:
    """Three experts, saved as mlp.experts.N.gate_proj, up_proj and down_proj; untied."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=12, moe_intermediate_size=6,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=4,
        num_experts=3, num_experts_per_tok=2, tie_word_embeddings=False,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config)


def write_peft(
    folder: Path, make: Callable[[], Model], resized: int | None = None, **config: Any
) -> torch.Tensor:
    """Save `base` and `adapter` into a folder, all that is trained at random.

    Returns:
        The logits of base with adapter, unmerged, in float64: what was trained.
    """
    make().save_pretrained(folder / "base")
    model = load(folder / "base", torch.float32)
    if resized is not None:
        model.resize_token_embeddings(resized, mean_resizing=False)
    defaults = {"r": 2, "lora_alpha": 3, "init_lora_weights": False}
    wrapped = get_peft_model(model, LoraConfig(**(defaults | config)))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.2
    wrapped.save_pretrained(folder / "adapter")
    return logits(wrapped.double())


def load(folder: Path, dtype: torch.dtype = torch.float64) -> Model:
    """A saved model; its experts one by one, since the kernels for all know no float64."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager")


def merged_by_peft(
    folder: Path, resized: int | None = None, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """The logits after PEFT's own merge, save and reload; the base is read as `dtype`."""
    model = load(folder / "base", dtype)
    if resized is not None:
        model.resize_token_embeddings(resized, mean_resizing=False)
    wrapped = PeftModel.from_pretrained(model, folder / "adapter").double()
    wrapped.merge_and_unload().save_pretrained(folder / "by-peft")
    return logits(load(folder / "by-peft"))


def logits(model: Model) -> torch.Tensor:
    """(vocabulary, vocabulary): every token is seen once."""
    tokens = torch.arange(model.config.vocab_size)
    with torch.no_grad():
        result: torch.Tensor = model.eval()(tokens[None]).logits[0]
    return result
