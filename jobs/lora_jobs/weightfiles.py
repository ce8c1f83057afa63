"""Safetensors files by their headers: what tensors they hold, and how many bytes.

Nothing here loads a tensor. Format: 8 bytes little-endian length of the header, the header as JSON
{name: {dtype, shape, data_offsets}}, then the data, to which the offsets refer. A header is checked
as the safetensors library checks it: the tensors fill the file without hole or overlap, and each
has the bytes that its dtype and shape need.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import MAX_DOCUMENT_BYTES, parse_json, read_object

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_MODEL = "model"
"""Name of a model's one file and of its index, before the suffix."""
MAX_HEADER_BYTES = MAX_DOCUMENT_BYTES
"""The library takes 100 MB, of which Python would make gigabytes of objects."""
_MAX_DIMENSIONS = 16
_MAX_NAME_CHARACTERS = 1024
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Others (below 8 bits) are taken as the header says."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: `size` bytes at `offset` from the start of `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int


def tensors_in(file: Path) -> list[TensorEntry]:
    """The tensors of one file, in the order of its header.

    Raises:
        Refused: It is no safetensors file, or a truncated one.
    """
    length = file.stat().st_size
    with file.open("rb") as stream:

        def read(start: int, count: int) -> bytes:
            stream.seek(start)
            return stream.read(count)

        return tensors_by(read, file, length)


def tensors_by(read: Callable[[int, int], bytes], file: Path, length: int) -> list[TensorEntry]:
    """The tensors of a file that may lie elsewhere, in the order of its header.

    Args:
        read: Gives `count` bytes from `start` on, or fewer where the file ends.
        file: Its name.
        length: Its size in bytes.

    Raises:
        Refused: It is no safetensors file, or a truncated one.
    """
    header_bytes = int.from_bytes(read(0, 8), "little")
    if not 0 < header_bytes <= min(MAX_HEADER_BYTES, length - 8):
        raise _broken(file, "its header is longer than the file or than any may be")
    try:
        header = parse_json(read(8, header_bytes), MAX_HEADER_BYTES, _without_duplicates)
        entries = [
            _entry(name, tensor, file, 8 + header_bytes)
            for name, tensor in header.items()
            if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _broken(file, "its header is malformed") from None
    end = 8 + header_bytes
    for entry in sorted(entries, key=lambda e: (e.offset, e.size)):
        if entry.offset != end:
            raise _broken(file, f"{entry.name} does not begin where the tensor before it ends")
        end += entry.size
    if end != length:
        raise _broken(file, f"it has {length} bytes and its header speaks of {end}")
    return entries


def tensors_of(model: Path) -> dict[str, TensorEntry]:
    """Every tensor of a model's or an adapter's folder, by name.

    The files that the index names are the model, or the one file of a model without index; others
    beside them, such as another layout of the same weights, are not.

    Raises:
        Refused: There is no safetensors file, one is broken, two hold the same tensor, or the index
            names a file or tensor that is not there.
    """
    index = _index(model)
    files = _weight_files(model, index)
    if not files:
        raise Refused(
            Reason.UNSAFE_FILE if any(model.glob("*.bin")) else Reason.INVALID_INPUT,
            f"{model.name} holds no safetensors file; convert its weights to safetensors",
        )
    tensors: dict[str, TensorEntry] = {}
    for entry in (e for file in files for e in tensors_in(file)):
        if entry.name in tensors:
            raise Refused(
                Reason.INVALID_INPUT,
                f"tensor {entry.name} is in {tensors[entry.name].file.name} and in "
                f"{entry.file.name}; remove one of the files",
            )
        tensors[entry.name] = entry
    for name, file in index.items():
        if name not in tensors or tensors[name].file != file:
            raise Refused(
                Reason.INVALID_INPUT,
                f"the index of {model.name} says that {name} is in {file.name}, where it is not; "
                "upload index and weights again",
            )
    return tensors


def name_in_base(wanted: str, base: Mapping[str, object]) -> str | None:
    """The base's name of a tensor that an adapter speaks of; None where it has none.

    Files of a model without head (the first GPT-2's) lack the name of its body, which an adapter
    of the model with head says: `transformer.h.0.attn.c_attn.weight` is `h.0.attn.c_attn.weight`.
    """
    if wanted in base:
        return wanted
    body, _, rest = wanted.partition(".")
    if rest not in base or any(name.startswith(f"{body}.") for name in base):
        return None
    return rest


def weights_bytes(*folders: Path) -> int:
    """Bytes of all tensors of these folders together, headers not counted."""
    return sum(tensor.size for folder in folders for tensor in tensors_of(folder).values())


def _index(model: Path) -> Mapping[str, Path]:
    """The file of each tensor as the index says; empty when there is none."""
    index = model / f"{_MODEL}{INDEX_SUFFIX}"
    if not index.is_file():
        return {}
    try:
        weight_map = read_object(index)["weight_map"]
        files = {name: model / Path(file).name for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(
            Reason.INVALID_INPUT, f"{index.name} is no index of safetensors files; upload it again"
        ) from None
    missing = sorted({file.name for file in files.values() if not file.is_file()})
    if missing:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{index.name} names {missing[0]}, which is not there; upload the model again",
        )
    return files


def _weight_files(model: Path, index: Mapping[str, Path]) -> list[Path]:
    """What transformers would load; all files where it would load none, e.g. of an adapter."""
    single = model / f"{_MODEL}{SUFFIX}"
    if index:
        return sorted({*index.values()})
    return [single] if single.is_file() else sorted(model.glob(f"*{SUFFIX}"))


def _entry(name: str, tensor: dict[str, Any], file: Path, data_start: int) -> TensorEntry:
    begin, end = tensor["data_offsets"]
    shape = tuple(tensor["shape"])
    if len(name) > _MAX_NAME_CHARACTERS or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("no tensor has so long a name or so many dimensions")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (begin, end, *shape)):
        raise ValueError(f"{name}: offsets and sizes are natural numbers")
    if not isinstance(tensor["dtype"], str):
        raise ValueError(f"{name}: a dtype is a word")
    bytes_each = _ITEM_BYTES.get(tensor["dtype"])
    if end < begin or (bytes_each is not None and end - begin != bytes_each * math.prod(shape)):
        raise ValueError(f"{name}: offsets do not fit dtype and shape")
    return TensorEntry(name, tensor["dtype"], shape, file, data_start + begin, end - begin)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice and Python keeps the last; other readers may keep the first."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is there twice")
    return document


def _broken(file: Path, what: str) -> Refused:
    return Refused(
        Reason.INVALID_INPUT,
        f"{file.name} is no complete safetensors file, {what}; upload it again",
    )
