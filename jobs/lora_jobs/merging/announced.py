"""What adapter_config.json announces and what the weights hold must be the same. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.keys import Key, Part
from lora_jobs.merging.scaling import CONFIG

_HEADS_BY_TASK = ("classifier", "score", "qa_outputs")
"""PEFT lists them all for classification, whichever of them the model has."""


def check_announced(
    config: Mapping[str, Any], modules: Mapping[str, set[Part]], whole: Iterable[Key]
) -> None:
    """Compare the config with the keys.

    Args:
        config: The document of adapter_config.json.
        modules: The parts that each wrapped module has.
        whole: The keys of whole tensors.

    Raises:
        Refused: One announces what the other lacks.
    """
    updated = {m: p for m, p in modules.items() if p & {Part.A, Part.EMBEDDING_A}}
    linear = {m: p for m, p in updated.items() if Part.A in p}
    _check_each(config, "use_dora", Part.MAGNITUDE, updated)
    _check_each(config, "lora_bias", Part.BIAS, linear)
    _check_saved(config.get("modules_to_save") or [], whole)
    _check_tokens(config, {m for m, parts in modules.items() if Part.TOKENS in parts})


def token_indices(config: Mapping[str, Any], module: str) -> tuple[int, ...]:
    """Which rows of a module its trainable tokens are, in the order of the weights.

    Raises:
        Refused: The config says nothing of that module, or no list of row numbers.
    """
    indices = config.get("trainable_token_indices")
    if isinstance(indices, dict):
        indices = next((i for name, i in indices.items() if _is_end(name, module)), None)
    if not isinstance(indices, list) or not all(type(i) is int and i >= 0 for i in indices):
        raise _invalid(f"names no rows for the trainable tokens of {module}")
    if len(set(indices)) != len(indices):
        raise _invalid(f"names a row of {module} twice")
    return tuple(indices)


def _check_each(
    config: Mapping[str, Any], field: str, part: Part, modules: Mapping[str, set[Part]]
) -> None:
    is_set = bool(config.get(field))
    wrong = next((m for m, parts in modules.items() if (part in parts) is not is_set), None)
    if wrong is not None:
        has = "has no" if is_set else "has a"
        raise _invalid(f"says {field}={str(is_set).lower()}, but {wrong} {has} {part}")


def _check_saved(names: Any, whole: Iterable[Key]) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _invalid("has modules_to_save that are no list of names")
    ancestors = {
        ".".join(parts[:end])
        for parts in (key.module.split(".") for key in whole)
        for end in range(1, len(parts) + 1)
    }
    for name in names:
        # As PEFT matches them: by the end of the module's name.
        if name not in _HEADS_BY_TASK and not any(a.endswith(name) for a in ancestors):
            raise _invalid(f"lists {name} in modules_to_save, of which there are no weights")


def _check_tokens(config: Mapping[str, Any], modules: set[str]) -> None:
    indices = config.get("trainable_token_indices")
    if bool(indices) is not bool(modules):
        has = "no trainable tokens" if indices else "trainable tokens"
        raise _invalid(f"has trainable_token_indices {indices}, and the weights hold {has}")
    if isinstance(indices, dict):
        held = [i for name, i in indices.items() if any(_is_end(name, m) for m in modules)]
        # A tied head that trains the embedding's rows has no weights of its own.
        lost = [name for name, i in indices.items() if i not in held]
        if lost:
            raise _invalid(f"has trainable_token_indices of {lost[0]}, of which are no weights")


def _is_end(name: str, module: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _invalid(message: str) -> Refused:
    return Refused(
        Reason.INVALID_INPUT,
        f"the adapter's {CONFIG} {message}; upload the two files that PEFT saved together",
    )
