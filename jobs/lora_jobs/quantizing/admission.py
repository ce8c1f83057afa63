"""What can be quantized, decided from headers and config before anything heavy is imported.

Quantized are the linear layers of the decoder; embeddings, norms and the language model's head stay
in 16 bit. Refused by name is what would quantize wrongly or not load in a serving engine.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.weightfiles import TensorEntry

ENGINE_MULTIPLE = 32
"""In and out features of 4-bit kernels are multiples of this."""
SIXTEEN_BIT = ("BF16", "F16", "F32")
ROW_PARALLEL = ("o_proj", "down_proj", "out_proj", "c_proj", "wo", "w2", "fc2")
"""Layers whose input features engines split over accelerators (Megatron's row parallel)."""

_LAYER_WEIGHT = re.compile(r"^(.*\blayers\.\d+\..+)\.weight$")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_OTHER_SENSES = ("vision_config", "audio_config")


def refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Let architectures pass for which a good 4-bit model can be promised.

    Raises:
        Refused: It is quantized already, sees or hears, or routes tokens to experts.
    """
    if config.get("quantization_config"):
        raise _refused("the model is quantized already; quantize the 16-bit model")
    senses = [name for name in _OTHER_SENSES if config.get(name)]
    if senses:
        raise _refused(f"config.json has {senses[0]}: only text models can be quantized so far")
    experts = [name for name in _EXPERT_COUNTS if (config.get(name) or 0) > 1]
    if experts:
        raise _refused(
            f"config.json has {experts[0]} {config[experts[0]]}: mixtures of experts cannot be "
            "quantized so far, since calibration may not reach every expert"
        )


def modules_to_quantize(
    shapes: Mapping[str, tuple[int, ...]], group_size: int, tensor_parallel: int = 1
) -> dict[str, int]:
    """Name of each module that is quantized -> how many weights it has.

    Args:
        shapes: Of every tensor; a linear layer's weight is (out, in).
        group_size: Input columns that share one scale.
        tensor_parallel: Accelerators that the engine splits a layer over. Those layers whose input
            is split (`ROW_PARALLEL`) need whole groups on each of them.

    Raises:
        Refused: A module's shape does not divide into groups, or no module was found.
    """
    modules: dict[str, int] = {}
    for name, shape in sorted(shapes.items()):
        match = _LAYER_WEIGHT.match(name)
        if match and len(shape) == 2:
            modules[match[1]] = _checked(match[1], shape, group_size)
            _refuse_cut_groups(match[1], shape[1], group_size, tensor_parallel)
    if not modules:
        raise _refused("no linear layer of a decoder is found in the weights")
    return modules


def refuse_wrong_outcome(tensors: Mapping[str, TensorEntry], expected: Iterable[str]) -> None:
    """Let a quantized model pass whose 4-bit modules are exactly the expected ones.

    Raises:
        Refused: The library, which knows architectures by their own lists, quantized more or less,
            or narrowed something else.
    """
    quantized = {n.removesuffix(".qweight") for n in tensors if n.endswith(".qweight")}
    unlike = sorted(quantized ^ set(expected))
    packed = tuple(f"{module}." for module in quantized)
    unlike += sorted(
        name
        for name, tensor in tensors.items()
        if not name.startswith(packed) and tensor.dtype not in SIXTEEN_BIT
    )
    if unlike:
        raise _refused(
            f"GPTQModel treats {len(unlike)} tensors of this architecture otherwise than expected, "
            f"e.g. {unlike[0]}; it cannot be quantized so far"
        )


def _refuse_cut_groups(module: str, in_features: int, group_size: int, parallel: int) -> None:
    if module.rpartition(".")[2] not in ROW_PARALLEL or in_features % (parallel * group_size) == 0:
        return
    fitting = [g for g in (64, 32) if g < group_size and in_features % (parallel * g) == 0]
    advice = f"use groupSize {fitting[0]}, or fewer" if fitting else "use fewer"
    raise _refused(
        f"{module} has {in_features} input features, which {parallel} accelerators cannot split "
        f"into groups of {group_size}; {advice} accelerators (--tensor-parallel-size)"
    )


def _checked(module: str, shape: tuple[int, ...], group_size: int) -> int:
    out_features, in_features = shape
    if in_features % group_size:
        fitting = [g for g in (64, 32) if g < group_size and in_features % g == 0]
        advice = f"use groupSize {fitting[0]}" if fitting else "it cannot be quantized"
        raise _refused(
            f"{module} has {in_features} input features, no multiple of the group size "
            f"{group_size}; {advice}"
        )
    if out_features % ENGINE_MULTIPLE or in_features % ENGINE_MULTIPLE:
        raise _refused(
            f"{module} is {out_features} x {in_features}; 4-bit kernels need multiples of "
            f"{ENGINE_MULTIPLE}"
        )
    return out_features * in_features


def _refused(message: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, message)
