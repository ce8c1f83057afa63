"""What a LoRA adapter changes, read from its config and the header of its weights.

Every key of the file is understood or refused, and what the config announces must be there: PEFT
only warns of a missing key, and then the layer stays as the base has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import read_object
from lora_jobs.merging.announced import check_announced, token_indices
from lora_jobs.merging.experts import is_experts, parameter_of
from lora_jobs.merging.keys import Key, Part, parse_key
from lora_jobs.merging.scaling import CONFIG, Scaling, read_scaling
from lora_jobs.merging.variants import refuse_key, refuse_parameter, refuse_variants
from lora_jobs.weightfiles import TensorEntry, tensors_in

WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")

Parts = dict[Part, TensorEntry]


@dataclass(frozen=True)
class LoraTarget:
    """The update of one layer: delta = scaling * B @ A, of (out, in).

    Attributes:
        module: Name in the base, e.g. `model.layers.0.mlp.up_proj`.
        a: (r, in_features); of an embedding (r, rows).
        b: (out_features, r); of an embedding (columns, r).
        is_embedding: The base holds the weight as (in, out).
        fan_in_fan_out: The config's word that it does; it is that of the last layer wrapped.
        experts: How many stand in A and B side by side, as `experts` says; 0 where it is none of
            them and the module is a layer, otherwise it is a parameter's name.
        magnitude: DoRA's, (out,): merged weights have that norm for each output.
        bias: `lora_bias`, (out,): scaling times it is added to the layer's bias.
    """

    module: str
    a: TensorEntry
    b: TensorEntry
    scaling: float
    is_embedding: bool = False
    fan_in_fan_out: bool = False
    experts: int = 0
    magnitude: TensorEntry | None = None
    bias: TensorEntry | None = None

    @property
    def inner(self) -> int:
        """in_features."""
        return self.a.shape[1]

    @property
    def outer(self) -> int:
        """out_features."""
        return self.b.shape[0]


@dataclass(frozen=True)
class TokenRows:
    """Trainable tokens: rows that take the place of an embedding's.

    Attributes:
        rows: (number of indices, columns).
    """

    rows: TensorEntry
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Adapter:
    """All updates of an adapter.

    Attributes:
        targets: By module.
        tokens: By module.
        under: Whole tensors that take the place of the base's, by name in the base.
        saved: Whole tensors of a module alone, by name in the base.
        trained_on: `base_model_name_or_path`; a hint for people, often a path of another machine.
        bias: Which biases were trained, e.g. `lora_only`.
    """

    targets: Mapping[str, LoraTarget]
    tokens: Mapping[str, TokenRows]
    under: Mapping[str, TensorEntry]
    saved: Mapping[str, TensorEntry]
    trained_on: str
    bias: str


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder.

    Raises:
        Refused: A variant that this merge does not know, a key that it does not understand, or
            weights that are only there as pickle.
    """
    config = _config(folder)
    refuse_variants(config)
    scaling = read_scaling(config)
    modules, whole = _sorted_keys(tensors_in(_weights(folder)))
    check_announced(config, {m: set(parts) for m, parts in modules.items()}, whole)
    under, saved = _whole_tensors(whole)
    is_fan_in = bool(config.get("fan_in_fan_out"))
    parameters = config.get("target_parameters") or []
    _check_parameters(parameters, modules)
    return Adapter(
        targets={
            module: (
                _experts(module, parts, scaling, parameters)
                if is_experts(module)
                else _target(module, parts, scaling, is_fan_in)
            )
            for module, parts in modules.items()
            if Part.TOKENS not in parts
        },
        tokens={
            module: TokenRows(parts[Part.TOKENS], token_indices(config, module))
            for module, parts in modules.items()
            if Part.TOKENS in parts
        },
        under=under,
        saved=saved,
        trained_on=str(config.get("base_model_name_or_path") or ""),
        bias=config.get("bias") or "none",
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / CONFIG)
    except (OSError, ValueError):
        raise _invalid(f"the adapter has no readable {CONFIG}; upload it again") from None


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


def _sorted_keys(
    tensors: list[TensorEntry],
) -> tuple[dict[str, Parts], dict[Key, TensorEntry]]:
    """The parts of each wrapped module, and the whole tensors."""
    modules: dict[str, Parts] = {}
    whole: dict[Key, TensorEntry] = {}
    for tensor in tensors:
        key = parse_key(tensor.name, tensor.shape)
        if key is None:
            raise refuse_key(tensor.name, tensor.shape)
        if key.leaf:
            whole[key] = tensor
        else:
            modules.setdefault(key.module, {})[key.part] = tensor
    if not modules and not whole:
        raise _invalid(f"{WEIGHTS} is empty; upload the adapter again")
    return modules, whole


def _target(module: str, parts: Parts, scaling: Scaling, is_fan_in: bool) -> LoraTarget:
    is_embedding = Part.EMBEDDING_A in parts or Part.EMBEDDING_B in parts
    names = (Part.EMBEDDING_A, Part.EMBEDDING_B) if is_embedding else (Part.A, Part.B)
    optional = {Part.MAGNITUDE} if is_embedding else {Part.MAGNITUDE, Part.BIAS}
    if not set(names) <= set(parts):
        raise _invalid(
            f"the adapter has only one of {names[0]} and {names[1]} for {module}; upload it again"
        )
    if set(parts) - set(names) - optional:
        raise _invalid(
            f"the adapter holds {', '.join(sorted(parts))} for {module}, which do not belong "
            "together; upload what save_pretrained wrote"
        )
    a, b = (parts[name] for name in names)
    _check_rank(module, scaling.rank(module), a, b)
    for part in optional & set(parts):
        if parts[part].shape != b.shape[:1]:
            raise _invalid(
                f"{module}: {part} is {list(parts[part].shape)} and {names[1]} {list(b.shape)}; "
                "upload the adapter again"
            )
    return LoraTarget(
        module, a, b, scaling.factor(module), is_embedding, is_fan_in,
        magnitude=parts.get(Part.MAGNITUDE), bias=parts.get(Part.BIAS),
    )  # fmt: skip


def _check_parameters(parameters: Any, modules: Mapping[str, Parts]) -> None:
    """Every parameter that the config names must be updated."""
    if not isinstance(parameters, list) or not all(isinstance(name, str) for name in parameters):
        raise _invalid(f"{CONFIG}: target_parameters is no list of names; upload what PEFT saved")
    updated = [name for m in modules if (name := parameter_of(m, parameters))]
    for parameter in parameters:
        if not any(f".{name}".endswith(f".{parameter}") for name in updated):
            raise refuse_parameter(parameter)


def _experts(module: str, parts: Parts, scaling: Scaling, parameters: Sequence[str]) -> LoraTarget:
    name = parameter_of(module, parameters)
    if name is None or set(parts) != {Part.A, Part.B}:
        raise refuse_parameter(module)
    a, b = parts[Part.A], parts[Part.B]
    experts, rest = divmod(a.shape[0], scaling.rank(name))
    if rest or a.shape[0] != b.shape[1]:
        raise _invalid(
            f"{name}: {CONFIG} says rank {scaling.rank(name)} for each expert, but lora_A is "
            f"{list(a.shape)} and lora_B {list(b.shape)}; upload the config of these weights"
        )
    return LoraTarget(name, a, b, scaling.factor(name), experts=experts)


def _check_rank(module: str, rank: int, a: TensorEntry, b: TensorEntry) -> None:
    if a.shape[0] != rank or b.shape[1] != rank:
        raise _invalid(
            f"{module}: {CONFIG} says rank {rank}, but lora_A is {list(a.shape)} and lora_B "
            f"{list(b.shape)}; upload the config that belongs to the weights"
        )


def _whole_tensors(
    whole: Mapping[Key, TensorEntry],
) -> tuple[dict[str, TensorEntry], dict[str, TensorEntry]]:
    """Those that take the base's place, and those of a module alone."""
    under: dict[str, TensorEntry] = {}
    saved: dict[str, TensorEntry] = {}
    for key, tensor in whole.items():
        name = f"{key.module}.{key.leaf}"
        place = under if key.part is Part.UNDER else saved
        if name in place and not same_values(place[name], tensor):
            raise _invalid(f"the adapter holds two {name} that differ; upload it again")
        place[name] = tensor
    return under, saved


def same_values(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two tensors have the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.offset)
        second.seek(other.offset)
        left = one.size
        while left:
            count = min(left, 2**20)
            if first.read(count) != second.read(count):
                return False
            left -= count
    return True


def _invalid(message: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, message)
