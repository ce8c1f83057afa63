"""Safetensors files by their headers: what tensors they hold, and how many bytes.

Nothing here loads a tensor. Format: 8 bytes little-endian length of the header, the header as JSON
{name: {dtype, shape, data_offsets}}, then the data, to which the offsets refer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""


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
        header_bytes = int.from_bytes(stream.read(8), "little")
        if not 0 < header_bytes <= min(MAX_HEADER_BYTES, length - 8):
            raise _broken(file)
        try:
            header: dict[str, Any] = json.loads(stream.read(header_bytes))
            entries = [
                _entry(name, tensor, file, 8 + header_bytes)
                for name, tensor in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _broken(file) from None
    if any(e.size < 0 or e.offset + e.size > length for e in entries):
        raise _broken(file)
    return entries


def tensors_of(model: Path) -> dict[str, TensorEntry]:
    """Every tensor of a model's or an adapter's folder, by name.

    Raises:
        Refused: There is no safetensors file, one is broken, or two hold the same tensor.
    """
    files = sorted(model.glob(f"*{SUFFIX}"))
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
    return tensors


def weights_bytes(*folders: Path) -> int:
    """Bytes of all tensors of these folders together, headers not counted."""
    return sum(tensor.size for folder in folders for tensor in tensors_of(folder).values())


def _entry(name: str, tensor: dict[str, Any], file: Path, data_start: int) -> TensorEntry:
    begin, end = tensor["data_offsets"]
    return TensorEntry(
        name, tensor["dtype"], tuple(tensor["shape"]), file, data_start + begin, end - begin
    )


def _broken(file: Path) -> Refused:
    return Refused(
        Reason.INVALID_INPUT, f"{file.name} is no complete safetensors file; upload it again"
    )
