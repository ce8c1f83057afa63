"""What a LoRA adapter changes, read from its config and the header of its weights.

Every key of the file is understood or refused. Scaling follows PEFT: alpha / r, or alpha / sqrt(r)
for rsLoRA, with `rank_pattern` and `alpha_pattern` by the first pattern that matches in file order.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.weightfiles import TensorEntry, tensors_in

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
_REINITIALISED = ("pissa", "olora", "corda", "loftq", "lora_ga", "milora", "mora")
_ELSEWHERE = "merge it with the tool that trained it and give the result as baseModel"


@dataclass(frozen=True)
class LoraTarget:
    """The update of one linear layer: delta = scaling * B @ A.

    Attributes:
        module: Name in the base, e.g. `model.layers.0.mlp.up_proj`.
        a: (r, in_features).
        b: (out_features, r).
    """

    module: str
    a: TensorEntry
    b: TensorEntry
    scaling: float


@dataclass(frozen=True)
class Adapter:
    """All updates of an adapter, by the name of the base's weight."""

    targets: Mapping[str, LoraTarget]
    base_name: str


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder.

    Raises:
        Refused: A variant that this merge does not know, a key that it does not understand, or
            weights that are only there as pickle.
    """
    config = _config(folder)
    _refuse_variants(config)
    if not (folder / WEIGHTS).is_file():
        pickled = any(folder.glob("*.bin"))
        raise Refused(
            Reason.UNSAFE_FILE if pickled else Reason.INVALID_INPUT,
            f"the adapter has no {WEIGHTS}"
            + ("; its pickle file can run code: save it with save_pretrained" if pickled else ""),
        )
    pairs = _pairs(tensors_in(folder / WEIGHTS))
    targets = {
        f"{module}.weight": LoraTarget(module, a, b, _scaling(config, module, a, b))
        for module, (a, b) in pairs.items()
    }
    return Adapter(targets, str(config.get("base_model_name_or_path") or ""))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
    except (OSError, ValueError):
        pass
    raise Refused(Reason.INVALID_INPUT, f"the adapter has no readable {CONFIG}; upload it again")


def _initialised_from_base(config: Mapping[str, Any]) -> bool:
    return str(config.get("init_lora_weights", "")).lower().startswith(_REINITIALISED)


_VARIANTS: tuple[tuple[str, Callable[[Mapping[str, Any]], Any], str], ...] = (
    ("DoRA (use_dora)", lambda c: c.get("use_dora"), _ELSEWHERE),
    ("modules_to_save", lambda c: c.get("modules_to_save"), _ELSEWHERE),
    ("trainable tokens", lambda c: c.get("trainable_token_indices"), _ELSEWHERE),
    ("trained biases (bias)", lambda c: c.get("bias", "none") != "none", _ELSEWHERE),
    ("lora_bias", lambda c: c.get("lora_bias"), _ELSEWHERE),
    ("Conv1D layers (fan_in_fan_out)", lambda c: c.get("fan_in_fan_out"), _ELSEWHERE),
    ("layer_replication", lambda c: c.get("layer_replication"), _ELSEWHERE),
    ("target_parameters", lambda c: c.get("target_parameters"), _ELSEWHERE),
    ("an activated LoRA (aLoRA)", lambda c: c.get("alora_invocation_tokens"),
     "it works on parts of the input only and cannot be merged; train a plain LoRA"),
    ("QALoRA", lambda c: c.get("use_qalora"),
     "it belongs to a quantized base; train a plain LoRA on the 16-bit base"),
    ("Arrow routing", lambda c: c.get("arrow_config"),
     "it chooses an expert per token and cannot be merged; train a plain LoRA"),
    ("an initialisation that changed the base (init_lora_weights)", _initialised_from_base,
     "save it with path_initial_model_for_weight_conversion, which makes it a plain LoRA"),
)  # fmt: skip


def _refuse_variants(config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"the adapter is of type {kind or 'unknown'}; only LORA can be merged: {_ELSEWHERE}",
        )
    if not isinstance(config.get("r"), int) or not _is_number(config.get("lora_alpha")):
        raise Refused(
            Reason.INVALID_INPUT, f"{CONFIG} has no r or no lora_alpha; upload what PEFT saved"
        )
    for name, is_used, advice in _VARIANTS:
        if is_used(config):
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"the adapter uses {name}, which is not merged: {advice}",
            )


def _pairs(tensors: list[TensorEntry]) -> dict[str, tuple[TensorEntry, TensorEntry]]:
    sides: dict[str, dict[str, TensorEntry]] = {}
    for tensor in tensors:
        match = _KEY.match(tensor.name)
        if match is None or len(tensor.shape) != 2:
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"the adapter holds {tensor.name} {list(tensor.shape)}, which is no part of a "
                f"plain LoRA: {_ELSEWHERE}",
            )
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    alone = sorted(module for module, pair in sides.items() if len(pair) != 2)
    if alone:
        raise Refused(
            Reason.INVALID_INPUT,
            f"the adapter has only one of lora_A and lora_B for {alone[0]}; upload it again",
        )
    if not sides:
        raise Refused(Reason.INVALID_INPUT, f"{WEIGHTS} is empty; upload the adapter again")
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}


def _scaling(config: Mapping[str, Any], module: str, a: TensorEntry, b: TensorEntry) -> float:
    rank = _by_pattern(config.get("rank_pattern"), module, config["r"])
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    if a.shape[0] != rank or b.shape[1] != rank:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{module}: {CONFIG} says rank {rank}, but lora_A is {list(a.shape)} and lora_B "
            f"{list(b.shape)}; upload the config that belongs to the weights",
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """As peft's `get_pattern_key`: the first pattern that matches the end of the name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module) and _is_number(value):
            return value
    return default


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
