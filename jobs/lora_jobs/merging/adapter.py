"""What a LoRA adapter changes, read from its config and the header of its weights.

Every key of the file is understood or refused. Scaling follows PEFT: alpha / r, or alpha / sqrt(r)
for rsLoRA, with `rank_pattern` and `alpha_pattern` by the first pattern that matches in the order
of the file. (PEFT sorts the keys when it saves, so that order may not be the one of the training;
the file's is the only one left, and ranks that do not fit the weights are refused.)
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.variants import refuse_key, refuse_variants
from lora_jobs.weightfiles import TensorEntry, tensors_in

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


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
    """All updates of an adapter.

    Attributes:
        targets: By the name of the base's weight.
        trained_on: `base_model_name_or_path`; a hint for people, often a path of another machine.
    """

    targets: Mapping[str, LoraTarget]
    trained_on: str


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder.

    Raises:
        Refused: A variant that this merge does not know, a key that it does not understand, or
            weights that are only there as pickle.
    """
    config = _config(folder)
    refuse_variants(config)
    ranks, alphas = _ranks(config), _alphas(config)
    pairs = _pairs(tensors_in(_weights(folder)))
    targets = {}
    for module, (a, b) in pairs.items():
        rank = ranks.value_for(module)
        _check_rank(module, rank, a, b)
        divisor = math.sqrt(rank) if config.get("use_rslora") else rank
        scaling = alphas.value_for(module) / divisor
        targets[f"{module}.weight"] = LoraTarget(module, a, b, scaling)
    return Adapter(targets, str(config.get("base_model_name_or_path") or ""))


@dataclass(frozen=True)
class _Pattern:
    """A default and its exceptions by layer, as `rank_pattern` and `alpha_pattern` say them."""

    default: float
    exceptions: tuple[tuple[re.Pattern[str], float], ...]

    def value_for(self, module: str) -> float:
        """As peft's `get_pattern_key`: the first pattern that matches the end of the name."""
        matching = (value for pattern, value in self.exceptions if pattern.match(module))
        return next(matching, self.default)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
    except (OSError, ValueError, RecursionError):
        pass
    raise _invalid(f"the adapter has no readable {CONFIG}; upload it again")


def _weights(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    if any(any(folder.glob(pickle)) for pickle in _PICKLES):
        raise Refused(
            Reason.UNSAFE_FILE,
            f"the adapter has no {WEIGHTS}, only pickle files, which can run code: load it where "
            "you trust it and save it with save_pretrained",
        )
    raise _invalid(f"the adapter has no {WEIGHTS}; upload what save_pretrained wrote")


def _ranks(config: Mapping[str, Any]) -> _Pattern:
    pattern = _pattern(config, "r", "rank_pattern")
    values = (pattern.default, *(value for _, value in pattern.exceptions))
    if any(value != int(value) for value in values):
        raise _invalid(f"{CONFIG}: a rank is a whole number; upload the config that PEFT saved")
    return pattern


def _alphas(config: Mapping[str, Any]) -> _Pattern:
    return _pattern(config, "lora_alpha", "alpha_pattern")


def _pattern(config: Mapping[str, Any], field: str, exceptions_field: str) -> _Pattern:
    exceptions = config.get(exceptions_field) or {}
    if not isinstance(exceptions, dict):
        raise _invalid(f"{CONFIG}: {exceptions_field} is no object; upload what PEFT saved")
    for name, value in ((field, config.get(field)), *exceptions.items()):
        if not _is_positive(value):
            raise _invalid(f"{CONFIG}: {name} is {value}, not a positive number; correct it")
    try:
        compiled = [(re.compile(rf"(.*\.)?({key})$"), value) for key, value in exceptions.items()]
    except (re.error, RecursionError, OverflowError) as error:
        raise _invalid(
            f"{CONFIG}: {exceptions_field} holds no regular expression: {error}; correct it"
        ) from None
    return _Pattern(config[field], tuple(compiled))


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= sys.float_info.max


def _pairs(tensors: list[TensorEntry]) -> dict[str, tuple[TensorEntry, TensorEntry]]:
    sides: dict[str, dict[str, TensorEntry]] = {}
    for tensor in tensors:
        match = _KEY.fullmatch(tensor.name)
        if match is None or len(tensor.shape) != 2:
            raise refuse_key(tensor.name, tensor.shape)
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides:
        raise _invalid(f"{WEIGHTS} is empty; upload the adapter again")
    alone = sorted(module for module, pair in sides.items() if len(pair) != 2)
    if alone:
        raise _invalid(
            f"the adapter has only one of lora_A and lora_B for {alone[0]}; upload it again"
        )
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}


def _check_rank(module: str, rank: float, a: TensorEntry, b: TensorEntry) -> None:
    if a.shape[0] != rank or b.shape[1] != rank:
        raise _invalid(
            f"{module}: {CONFIG} says rank {rank}, but lora_A is {list(a.shape)} and lora_B "
            f"{list(b.shape)}; upload the config that belongs to the weights"
        )


def _invalid(message: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, message)
