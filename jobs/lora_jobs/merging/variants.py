"""What is not merged: variants, initialisations and keys, each refused by name. Pure.

A field of adapter_config.json that is not known here is refused as well, when it is set: PEFT grows
a new variant with every release, and merges some of them wrongly without a word.
"""

import re
from collections.abc import Mapping
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused

_ELSEWHERE = "merge it with the tool that trained it and give the result as baseModel"
_PLAIN = "train a plain LoRA"
_CONVERT = "save it with path_initial_model_for_weight_conversion, which makes it a plain LoRA"

HARMLESS_FIELDS = frozenset(
    {
        # what is read
        "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
        "init_lora_weights", "base_model_name_or_path", "use_dora", "fan_in_fan_out",
        "modules_to_save", "trainable_token_indices", "bias", "lora_bias", "target_parameters",
        # how it was found, chosen and trained; nothing of it is in the weights' meaning
        "revision", "task_type", "inference_mode", "auto_mapping", "peft_version",
        "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
        "lora_dropout", "megatron_config", "megatron_core", "runtime_config",
        "ensure_weight_tying", "qalora_group_size",
        # parameters of initialisations; `init_lora_weights` says whether they are used
        "loftq_config", "eva_config", "corda_config", "lora_ga_config",
        # other gradients or sampling in training; PEFT merges both as plain LoRA
        "velora_config", "monteclora_config",
    }
)  # fmt: skip

_VARIANTS: dict[str, tuple[str, str]] = {
    "layer_replication": ("repeated layers (layer_replication)", _ELSEWHERE),
    "use_bdlora": ("block-diagonal BD-LoRA (use_bdlora)", _ELSEWHERE),
    "kasa_config": ("KaSA (kasa_config)", _ELSEWHERE),
    "alora_invocation_tokens": (
        "aLoRA (alora_invocation_tokens)",
        f"it changes only a part of each input, which no merged weight can do; {_PLAIN}",
    ),
    "arrow_config": (
        "Arrow routing (arrow_config)",
        f"it chooses an expert for each token, which no merged weight can do; {_PLAIN}",
    ),
    "use_qalora": (
        "QALoRA (use_qalora)",
        f"it belongs to a quantized base; {_PLAIN} on the 16-bit base",
    ),
}
"""Field: what people call it, and what to do."""

_PLAIN_INITIALISATIONS = ("gaussian", "eva", "orthogonal", "mica")
"""They choose where training starts and leave the base as it is."""
_BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")

_KEYS: tuple[tuple[str, str], ...] = (
    (r"\.lora_diag\b", "KaSA"),
    (r"\.lora_[AB]\.[^.]+\.weight$", "an adapter's name in its keys"),
    (r"\.base_layer\.(base_layer|lora_)", "parameters, one around the other"),
)
"""Keys that are not merged: pattern and what they come from, most telling first."""


def refuse_variants(config: Mapping[str, Any]) -> None:
    """Let the variants pass that are merged.

    Args:
        config: The document of adapter_config.json.

    Raises:
        Refused: UnsupportedAdapter, naming the variant and what to do.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _unsupported(f"is of type {kind or 'unknown'}; only LORA can be merged", _ELSEWHERE)
    for field, value in config.items():
        if field in HARMLESS_FIELDS or not value:
            continue
        if field not in _VARIANTS:
            raise _unsupported(f"sets {field}, which this merge does not know", _ELSEWHERE)
        name, advice = _VARIANTS[field]
        raise _unsupported(f"uses {name}, which is not merged", advice)
    if config.get("bias") not in (None, "none", "all", "lora_only"):
        raise _unsupported(f"trains biases in an unknown way, bias={config['bias']}", _ELSEWHERE)
    _refuse_initialisation(config.get("init_lora_weights", True))


def refuse_key(key: str, shape: tuple[int, ...]) -> Refused:
    """The refusal of a tensor that is no part of a variant that is merged."""
    source = next((name for pattern, name in _KEYS if re.search(pattern, key)), "")
    said = f" ({source})" if source else ""
    return _unsupported(
        f"holds {key} {list(shape)}{said}, which is no part of a LoRA on linear layers",
        _ELSEWHERE,
    )


def refuse_parameter(name: str) -> Refused:
    """The refusal of a parameter (target_parameters) that is not merged."""
    return _unsupported(
        f"updates {name} (target_parameters), and only experts.gate_up_proj and experts.down_proj "
        "whose files hold one matrix for each expert can be merged",
        _ELSEWHERE,
    )


def _refuse_initialisation(value: Any) -> None:
    if value is None or isinstance(value, bool) or value in _PLAIN_INITIALISATIONS:
        return
    name = f"init_lora_weights={value}"
    if str(value).lower().startswith(_BASE_CHANGING):
        raise _unsupported(f"was trained on a base that {name} had changed", _CONVERT)
    raise _unsupported(f"uses {name}, which this merge does not know", _ELSEWHERE)


def _unsupported(what: str, advice: str) -> Refused:
    return Refused(Reason.UNSUPPORTED_ADAPTER, f"the adapter {what}: {advice}")
