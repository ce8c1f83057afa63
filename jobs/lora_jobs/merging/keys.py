"""The names of an adapter's tensors, taken apart. Pure.

What a module's own state dict calls `M.lora_A.default.weight`, PEFT saves as
`base_model.model.M.lora_A.weight`. Whole tensors stand there in two meanings: a *base layer's*
takes the place of the base's own (a resized vocabulary, a trained bias, the copy that PEFT saves of
an embedding it targets), and one that is *saved beside* it (modules_to_save) changes only that
module, not one that shares its weights.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

_PREFIX = "base_model.model."


class Part(StrEnum):
    """What a tensor is to its module."""

    A = "lora_A"
    B = "lora_B"
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    MAGNITUDE = "lora_magnitude_vector"
    BIAS = "lora_B.bias"
    TOKENS = "trainable_tokens_delta"
    UNDER = "base_layer"
    SAVED = "modules_to_save"
    WHOLE = "whole"
    """A bare name: the module's own, whichever of the last two it is."""


@dataclass(frozen=True)
class Key:
    """A tensor's module, and what it is to it.

    Attributes:
        module: Name in the base, e.g. `model.layers.0.mlp.up_proj`.
        leaf: Of a whole tensor, `weight` or `bias`; else empty.
    """

    module: str
    part: Part
    leaf: str = ""


_FORMS: tuple[tuple[str, Part], ...] = (
    (r"\.lora_A\.weight", Part.A),
    (r"\.lora_B\.weight", Part.B),
    (r"\.lora_B\.bias", Part.BIAS),
    (r"\.lora_embedding_A", Part.EMBEDDING_A),
    (r"\.lora_embedding_B", Part.EMBEDDING_B),
    (r"\.lora_magnitude_vector", Part.MAGNITUDE),
    (r"\.token_adapter\.trainable_tokens_delta", Part.TOKENS),
    (r"(?:\.token_adapter)?\.base_layer\.(?P<leaf>weight|bias)", Part.UNDER),
    (r"\.original_module\.(?P<leaf>[^.]+)", Part.UNDER),
    (r"\.modules_to_save\.(?P<leaf>[^.]+)", Part.SAVED),
    (r"\.(?P<leaf>[^.]+)", Part.WHOLE),
)
_COMPILED = tuple(
    (re.compile(rf"{re.escape(_PREFIX)}(?P<module>.+?){form}"), part) for form, part in _FORMS
)
_OF_TUNERS = re.compile(
    r"\.(lora_\w+|base_layer|token_adapter|modules_to_save|original_module|trainable_tokens_\w+)\b"
)
_NESTED = re.compile(r"\.experts(\.base_layer)+$")
_DIMENSIONS = {Part.MAGNITUDE: 1, Part.BIAS: 1, Part.UNDER: None, Part.SAVED: None}


def parse_key(name: str, shape: tuple[int, ...]) -> Key | None:
    """Take a name apart; None for what is no part of a variant that is merged."""
    for pattern, part in _COMPILED:
        match = pattern.fullmatch(name)
        if match is None:
            continue
        module, leaf = match["module"], match.groupdict().get("leaf") or ""
        has_shape = part is Part.WHOLE or len(shape) == (_DIMENSIONS.get(part, 2) or len(shape))
        # Parameters of experts are wrapped one around the other.
        own = _NESTED.sub(".experts", module) if part in (Part.A, Part.B) else module
        is_plain = not _OF_TUNERS.search(f".{own}.{leaf}")
        return Key(module, part, leaf) if has_shape and is_plain else None
    return None
