"""A merged model says what base and adapter said together, in every variant, also where PEFT errs.

The oracle is the unmerged model in float64. The merged weights are float32, so that logits of
about 1 may differ by some 1e-6.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lora_jobs.errors import Refused
from lora_jobs.merging import merge_adapter
from mergefiles import quiet

pytestmark = pytest.mark.model

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Variant:
    """A model, an adapter, and what comes of them.

    Attributes:
        model: Function of `peftmodels`.
        config: Of PEFT's LoraConfig.
        resized: New size of the vocabulary.
        is_untied: The merged model has a head of its own where the base had none.
        is_right_in_peft: PEFT's merge, save and reload give the same.
    """

    model: str
    config: dict[str, Any]
    resized: int | None = None
    is_untied: bool = False
    is_right_in_peft: bool = True


Q, QV = ["q_proj", "down_proj"], ["q_proj", "v_proj"]
HEAD, EMBEDDING = ["lm_head", "q_proj"], ["embed_tokens", "q_proj"]
DORA = {
    "DoRA": Variant("llama", {"target_modules": [*QV, "down_proj"], "use_dora": True}),
    "DoRA with rsLoRA": Variant(
        "llama", {"target_modules": QV, "use_dora": True, "use_rslora": True}
    ),
    "DoRA of an embedding": Variant("llama", {"target_modules": EMBEDDING, "use_dora": True}),
    "DoRA of a head": Variant("llama", {"target_modules": HEAD, "use_dora": True}),
    "DoRA of Conv1D": Variant(
        "gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}
    ),
}
LAYERS = {
    "Conv1D": Variant("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "square Conv1D": Variant("gpt2", {"target_modules": ["attn.c_proj"]}),
    "an embedding": Variant("llama", {"target_modules": EMBEDDING}),
    "a head": Variant("llama", {"target_modules": HEAD}),
    "positions of a tied model": Variant("gpt2", {"target_modules": ["wpe"]}),
}
TIED = {
    name: Variant(model, config, is_untied=True, is_right_in_peft=False)
    for name, model, config in (
        ("tied, an embedding", "tied_llama", {"target_modules": EMBEDDING}),
        ("tied, a head", "tied_llama", {"target_modules": HEAD}),
        ("tied, both", "tied_llama", {"target_modules": ["lm_head", "embed_tokens"]}),
        ("tied, DoRA of both", "tied_llama",
         {"target_modules": ["lm_head", "embed_tokens"], "use_dora": True}),
        ("tied, both to stay so", "tied_llama",
         {"target_modules": HEAD, "ensure_weight_tying": True}),
        ("GPT-2's embedding", "gpt2", {"target_modules": ["wte", "c_attn"]}),
        ("GPT-2's head", "gpt2", {"target_modules": ["lm_head", "c_attn"]}),
    )
}  # fmt: skip
SAVED = {
    "saved head": Variant("llama", {"target_modules": Q, "modules_to_save": ["lm_head"]}),
    "saved both": Variant(
        "llama", {"target_modules": Q, "modules_to_save": ["lm_head", "embed_tokens"]}
    ),
    "saved norm and whole block": Variant(
        "llama", {"target_modules": Q, "modules_to_save": ["norm", "mlp", "o_proj"]}
    ),
    "tied, saved head": Variant(
        "tied_llama", {"target_modules": Q, "modules_to_save": ["lm_head"]}, is_untied=True
    ),
    "tied, saved embedding": Variant(
        "tied_llama", {"target_modules": Q, "modules_to_save": ["embed_tokens"]}, is_untied=True
    ),
    "tied, saved both to stay so": Variant(
        "tied_llama",
        {"target_modules": Q, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
}
TOKENS = {
    "tokens": Variant("llama", {"target_modules": Q, "trainable_token_indices": [3, 1]}),
    "tokens of both": Variant(
        "llama",
        {
            "target_modules": Q,
            "trainable_token_indices": {"embed_tokens": [3, 1], "lm_head": [5]},
        },
    ),
    "tied, tokens": Variant("tied_llama", {"target_modules": Q, "trainable_token_indices": [3, 1]}),
    "tied, tokens of both alike": Variant(
        "tied_llama",
        {
            "target_modules": Q,
            "trainable_token_indices": {"embed_tokens": [3, 1], "lm_head": [3, 1]},
        },
    ),
    "tied, tokens of both": Variant(
        "tied_llama",
        {
            "target_modules": Q,
            "trainable_token_indices": {"embed_tokens": [3, 1], "lm_head": [5]},
        },
        is_untied=True,
        is_right_in_peft=False,
    ),
    "tied, tokens of the head": Variant(
        "tied_llama",
        {"target_modules": Q, "trainable_token_indices": {"lm_head": [3]}},
        is_untied=True,
        is_right_in_peft=False,
    ),
    "GPT-2's tokens": Variant(
        "gpt2", {"target_modules": ["c_attn"], "trainable_token_indices": [3]}
    ),
}
RESIZED = {
    "resized": Variant("llama", {"target_modules": Q}, 23),
    "tied, resized": Variant("tied_llama", {"target_modules": Q}, 23),
    "shrunk": Variant("llama", {"target_modules": Q}, 18),
    "GPT-2 resized": Variant("gpt2", {"target_modules": ["c_attn"]}, 23),
    "resized and tokens": Variant(
        "llama", {"target_modules": Q, "trainable_token_indices": [20, 2]}, 22
    ),
    "tied, resized and tokens": Variant(
        "tied_llama", {"target_modules": Q, "trainable_token_indices": [20, 2]}, 22
    ),
    "resized and saved": Variant(
        "llama", {"target_modules": Q, "modules_to_save": ["embed_tokens"]}, 22
    ),
    "tied, resized and saved": Variant(
        "tied_llama", {"target_modules": Q, "modules_to_save": ["embed_tokens"]}, 22,
        is_untied=True,
    ),
    "tied, resized, an embedding": Variant(
        "tied_llama", {"target_modules": EMBEDDING}, 22, is_untied=True, is_right_in_peft=False
    ),
}  # fmt: skip
BIASES = {
    "all biases": Variant("llama", {"target_modules": Q, "bias": "all"}),
    "biases of the layers": Variant("llama", {"target_modules": QV, "bias": "lora_only"}),
    "GPT-2's biases": Variant("gpt2", {"target_modules": ["c_attn"], "bias": "all"}),
    "lora_bias": Variant("llama", {"target_modules": QV, "lora_bias": True}),
    "lora_bias and biases": Variant(
        "llama", {"target_modules": QV, "lora_bias": True, "bias": "lora_only"}
    ),
}
FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
EXPERTS = {
    f"{model}'s {name}": Variant(model, {"target_modules": ["q_proj"]} | config)
    for model in ("mixtral", "qwen3_moe")
    for name, config in (
        ("experts", {"target_parameters": FUSED}),
        ("gates", {"target_parameters": FUSED[:1]}),
        ("outputs", {"target_parameters": ["experts.down_proj"], "use_rslora": True}),
        ("experts of two ranks",
         {"target_parameters": FUSED, "rank_pattern": {"experts.down_proj": 4},
          "alpha_pattern": {"experts.gate_up_proj": 8}}),
    )
}  # fmt: skip
VARIANTS = EXPERTS | DORA | LAYERS | TIED | SAVED | TOKENS | RESIZED | BIASES


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_merged_model_says_what_the_unmerged_one_does(tmp_path: Path, variant: Variant) -> None:
    import torch

    import peftmodels

    make = getattr(peftmodels, variant.model)
    trained = peftmodels.write_peft(tmp_path, make, variant.resized, **variant.config)
    untrained = peftmodels.logits(peftmodels.load(tmp_path / "base"))
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    merged = peftmodels.logits(peftmodels.load(tmp_path / "merged"))
    assert torch.dist(merged, trained, torch.inf) < TOLERANCE
    n = min(len(merged), len(untrained))
    assert torch.dist(merged[:n, :n], untrained[:n, :n], torch.inf) > 0.005
    theirs = torch.dist(peftmodels.merged_by_peft(tmp_path, variant.resized), trained, torch.inf)
    assert theirs < TOLERANCE if variant.is_right_in_peft else theirs > 0.01
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert config["vocab_size"] == (variant.resized or peftmodels.VOCABULARY)
    base = json.loads((tmp_path / "base/config.json").read_text())
    assert config["tie_word_embeddings"] is (
        False if variant.is_untied else base["tie_word_embeddings"]
    )


def test_a_base_that_was_decomposed_by_chance_is_refused_where_peft_merges_it_wrongly(
    tmp_path: Path,
) -> None:
    """M8: PEFT decomposes the base again when it loads the adapter, and chance does not repeat."""
    import torch

    import peftmodels

    config: dict[str, Any] = {"target_modules": QV, "init_lora_weights": "pissa_niter_1"}
    trained = peftmodels.write_peft(tmp_path, peftmodels.llama, **config)
    with pytest.raises(Refused, match="init_lora_weights=pissa_niter_1"):
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    theirs = peftmodels.merged_by_peft(tmp_path, dtype=torch.float32)
    assert torch.dist(theirs, trained, torch.inf) > 10 * TOLERANCE
