"""Bases and adapters of a few kilobytes with chosen values, for tests of the merge.

The files are written here and not by the safetensors library, whose numpy side knows no bf16 and
which would not write the broken ones.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_api.jobcontract import Progress

Array = npt.NDArray[Any]
Header = dict[str, Any]

PREFIX = "base_model.model."
Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"


def quiet(_: Progress) -> None:
    """No progress wanted."""


def to_bf16(values: Array) -> Array:
    """The nearest bf16 values, ties to even, as fp64: an oracle that shares no code with ours.

    bf16 keeps 8 significant bits down to 2^-126, and multiples of 2^-133 below.
    """
    values = np.asarray(values, np.float64)
    _, exponents = np.frexp(values)
    unit = np.ldexp(1.0, np.maximum(exponents - 8, -133))
    nearest: Array = np.rint(values / unit) * unit  # rint rounds ties to even
    return nearest


def encode(values: Array, dtype: str) -> bytes:
    """The bytes of values in a dtype, rounded to nearest even."""
    if dtype == "BF16":
        upper = to_bf16(values).astype(np.float32).view(np.uint32) >> 16
        return upper.astype(np.uint16).tobytes()
    return values.astype({"F16": np.float16, "F32": np.float32}[dtype]).tobytes()


def decode(data: bytes, dtype: str) -> Array:
    """The same values as fp64."""
    if dtype == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).astype(np.float64)
    kind = {"F16": np.float16, "F32": np.float32, "U8": np.uint8}[dtype]
    return np.frombuffer(data, kind).astype(np.float64)


def stored(values: Array, dtype: str) -> Array:
    """Values as a file of that dtype holds them."""
    return decode(encode(values, dtype), dtype).reshape(values.shape)


def write_safetensors(
    file: Path, tensors: Mapping[str, Array], dtype: str = "F32",
    change: Callable[[Header], None] = lambda _: None,
) -> Path:  # fmt: skip
    """A safetensors file of these values.

    Args:
        change: Breaks the header before it is written.
    """
    header: Header = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        encoded = encode(values, dtype)
        offsets = [len(data), len(data) + len(encoded)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += encoded
    change(header)
    return write_raw(file, json.dumps(header).encode(), data)


def write_raw(file: Path, header: bytes, data: bytes = b"") -> Path:
    """A file of any header and data."""
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return file


def read_safetensors(file: Path) -> dict[str, Array]:
    """Every tensor of a file as fp64."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {
        name: decode(raw[start + t["data_offsets"][0] : start + t["data_offsets"][1]], t["dtype"])
        .reshape(t["shape"])
        for name, t in header.items()
    }  # fmt: skip


def write_base(
    folder: Path, tensors: Mapping[str, Array] | None = None, dtype: str = "F32", **config: Any
) -> Path:
    """A base of one file with config and tokenizer; of one small layer unless told otherwise."""
    folder.mkdir(parents=True)
    tensors = {f"{Q}.weight": matrix(6, 4)} if tensors is None else tensors
    write_safetensors(folder / "model.safetensors", tensors, dtype)
    (folder / "config.json").write_text(json.dumps({"vocab_size": 8} | config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    return folder


def write_shards(folder: Path, *shards: Mapping[str, Array], dtype: str = "BF16") -> Path:
    """A base of several files with their index."""
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / name, tensors, dtype)
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 8}))
    return folder


def write_adapter(
    folder: Path, tensors: Mapping[str, Array] | None = None, dtype: str = "F32", **config: Any
) -> Path:
    """An adapter; of rank 2 on the base's one layer unless told otherwise."""
    folder.mkdir(parents=True)
    tensors = lora(Q, 6, 4) if tensors is None else tensors
    write_safetensors(folder / "adapter_model.safetensors", tensors, dtype)
    document = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(document))
    return folder


def matrix(rows: int, columns: int, seed: int = 1) -> Array:
    """Normal values as float32."""
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def lora(module: str, outer: int, inner: int, rank: int = 2, seed: int = 0) -> dict[str, Array]:
    """The two keys of a layer."""
    return {
        f"{PREFIX}{module}.lora_A.weight": matrix(rank, inner, seed * 2 + 100),
        f"{PREFIX}{module}.lora_B.weight": matrix(outer, rank, seed * 2 + 101),
    }


def exact_sum(
    base: Array, update: Mapping[str, Array], module: str, alpha: float, rank: int, rslora: bool
) -> Array:
    """W + scaling * B @ A in fp64, from the formulas of the LoRA and rsLoRA papers."""
    a, b = (update[f"{PREFIX}{module}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    scaling = alpha / (math.sqrt(rank) if rslora else rank)
    sums: Array = base.astype(np.float64) + scaling * (b @ a)
    return sums
