"""What GPTQModel wrote, as bytes that depend on nothing but the inputs.

Its tensors may come in any order (after a resume), its config.json holds a temporary path and what
Transformers rewrote of the model's own, its log holds times. Here the tensors are sorted, the
model's own config is taken as it was plus the few fields by which engines read the format, and
every other file (tokenizer, chat template, generation config) is the merged model's, byte for byte.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lora_jobs.weightfiles import INDEX_SUFFIX, SUFFIX, TensorEntry, tensors_of

CONFIG = "config.json"
QUANTIZE_CONFIG = "quantize_config.json"
QUANTIZE_LOG = "quant_log.csv"
WRITTEN_HERE = (CONFIG, QUANTIZE_CONFIG, QUANTIZE_LOG, "manifest.json")

STABLE_FIELDS = (
    "bits", "group_size", "desc_act", "sym", "lm_head", "quant_method", "method", "format",
    "checkpoint_format", "pack_dtype", "zero_point", "version",
)  # fmt: skip
STABLE_META = (
    "quantizer", "damp_percent", "damp_auto_increment", "static_groups", "true_sequential", "mse",
    "act_group_aware",
)  # fmt: skip

MAX_SHARD_BYTES = 4 * 2**30
_COPY_BYTES = 8 * 2**20
_ALIGNMENT = 8


def canonicalise(raw: Path, model: Path, output: Path, log_rows: Sequence[Sequence[str]]) -> None:
    """Write the artifact.

    Args:
        raw: What GPTQModel saved.
        model: The 16-bit model that was quantized.
        output: An empty or missing folder.
        log_rows: Layer, module, loss, samples, damping of each module, as strings.
    """
    output.mkdir(parents=True, exist_ok=True)
    _copy_companions(model, output)
    quantization = stable_quantization(json.loads((raw / QUANTIZE_CONFIG).read_bytes()))
    config = json.loads((model / CONFIG).read_bytes()) | {"quantization_config": quantization}
    _write_json(output / CONFIG, config)
    _write_json(output / QUANTIZE_CONFIG, quantization)
    header = ("layer", "module", "loss", "samples", "damp")
    lines = [",".join(row) for row in (header, *log_rows)]
    (output / QUANTIZE_LOG).write_text("\n".join(lines) + "\n")
    write_shards(tensors_of(raw).values(), output)


def stable_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a quantization config that engines read and that inputs decide."""
    kept = {name: config[name] for name in STABLE_FIELDS if name in config}
    is_awq = config.get("quant_method") == "awq"
    # AWQ's has GPTQ's fields too, without values.
    meta = {n: v for n, v in (config.get("meta") or {}).items() if v is not None or not is_awq}
    return kept | {"meta": {name: meta[name] for name in STABLE_META if name in meta}}


def write_shards(
    tensors: Iterable[TensorEntry], output: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write tensors to safetensors files, in an order that their names and types decide.

    Bytes are copied from where the entries lie; nothing is loaded. Files are named as Transformers
    names them, with an index if there are several.
    """
    shards = list(_shards(sorted(tensors, key=lambda t: t.name), max_shard_bytes))
    total = len(shards)
    names = [
        f"model{SUFFIX}" if total == 1 else f"model-{i:05d}-of-{total:05d}{SUFFIX}"
        for i in range(1, total + 1)
    ]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(output / name, shard)
    if total > 1:
        weight_map = {
            t.name: name for name, shard in zip(names, shards, strict=True) for t in shard
        }
        size = sum(t.size for shard in shards for t in shard)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        _write_json(output / f"model{INDEX_SUFFIX}", index)


def _shards(tensors: Sequence[TensorEntry], limit: int) -> Iterator[list[TensorEntry]]:
    shard: list[TensorEntry] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.size > limit:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.size
    if shard:
        yield shard


def _write_shard(file: Path, tensors: Sequence[TensorEntry]) -> None:
    # Widest type first, as the safetensors library does: so every tensor is aligned to its type.
    ordered = sorted(tensors, key=lambda t: (-_width(t), t.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for tensor in ordered:
            _copy_tensor(tensor, out)


def _width(tensor: TensorEntry) -> int:
    elements = 1
    for extent in tensor.shape:
        elements *= extent
    return tensor.size // elements if elements else 1


def _copy_tensor(tensor: TensorEntry, out: BinaryIO) -> None:
    with tensor.file.open("rb") as source:
        source.seek(tensor.offset)
        left = tensor.size
        while left:
            block = source.read(min(left, _COPY_BYTES))
            if not block:
                raise EOFError(f"{tensor.file.name} ends within {tensor.name}")
            out.write(block)
            left -= len(block)


def _copy_companions(model: Path, output: Path) -> None:
    for file in sorted(model.rglob("*")):
        path = file.relative_to(model)
        is_weights = file.name.endswith((SUFFIX, INDEX_SUFFIX))
        if file.is_file() and not is_weights and str(path) not in WRITTEN_HERE:
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, output / path)


def _write_json(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
