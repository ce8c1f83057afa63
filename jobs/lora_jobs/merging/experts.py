"""Updates of all experts at once (`target_parameters`), taken apart expert by expert. Pure.

transformers 5 holds a layer's experts in memory as `experts.gate_up_proj` (experts, 2 * inner,
hidden) and `experts.down_proj` (experts, hidden, inner), but its files keep one matrix for each
expert. PEFT's factors of the former have the experts' A below each other, (experts * r, in), and
the experts' B interleaved, (out, r * experts) as (out, r, experts). Two parameters of one module
are two nested layers, so that the outer one, the last wrapped, is `down_proj`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_MODULE = re.compile(r"(?P<experts>(?:.+\.)?experts)(?P<nesting>(?:\.base_layer)*)")
_PARAMETERS = ("gate_up_proj", "down_proj")
"""In the order in which the models declare them and PEFT wraps them."""
_NAMES = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
"""Of an expert's matrices in the files: Qwen's and DeepSeek's, and Mixtral's."""
_MEMORY, _MIXTRAL = ".mlp.experts", ".block_sparse_moe.experts"


@dataclass(frozen=True)
class Slice:
    """The part of two factors that belongs to one matrix of one expert.

    Attributes:
        expert: Counted from 0.
        experts: How many there are.
        first_row: Of lora_B.
        rows: Of lora_B.
    """

    expert: int
    experts: int
    first_row: int
    rows: int


def is_experts(module: str) -> bool:
    """Whether a wrapped module holds all experts of a layer."""
    return _MODULE.fullmatch(module) is not None


def parameter_of(module: str, target_parameters: Iterable[str]) -> str | None:
    """The full name of the parameter that a wrapped module updates.

    Args:
        module: As the keys say it, e.g. `model.layers.0.mlp.experts.base_layer`.
        target_parameters: As adapter_config.json says them, matched by the end of the name.

    Returns:
        None where it is none that is known here.
    """
    match = _MODULE.fullmatch(module)
    if match is None:
        return None
    names = (f"{match['experts']}.{parameter}" for parameter in _PARAMETERS)
    targeted = [n for n in names if any(f".{n}".endswith(f".{t}") for t in target_parameters)]
    place = len(targeted) - 1 - match["nesting"].count(".base_layer")
    return targeted[place] if 0 <= place < len(targeted) else None


def matrices_of(
    parameter: str, rows: int, experts: int, base: Mapping[str, object]
) -> Iterator[tuple[str, Slice]]:
    """The matrices in the base's files that one parameter is made of, with their parts of it.

    Args:
        parameter: Its full name.
        rows: Of lora_B.
        experts: How many the update has.
        base: The base's tensors by name.

    Yields:
        Nothing where the files do not hold one matrix for each expert.
    """
    module, _, leaf = parameter.rpartition(".")
    for prefix in (module, module.replace(_MEMORY, _MIXTRAL)):
        for gate, up, down in _NAMES:
            if f"{prefix}.0.{down}.weight" not in base:
                continue
            if f"{prefix}.{experts}.{down}.weight" in base:
                return
            parts = (down,) if leaf == "down_proj" else (gate, up)
            each = rows // len(parts)
            for expert in range(experts):
                for number, part in enumerate(parts):
                    name = f"{prefix}.{expert}.{part}.weight"
                    yield name, Slice(expert, experts, number * each, each)
            return
