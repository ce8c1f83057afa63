"""A synthetic Llama in bf16, shards of at most 500 MB, and a LoRA of rank 16 on all its layers."""

import json
import sys
from pathlib import Path

import numpy as np

HIDDEN, INNER, VOCABULARY, RANK = 2048, 5504, 32000, 16
SHARD_BYTES = 500 * 10**6
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}  # fmt: skip
LAYER_BYTES = sum(2 * rows * columns for rows, columns in SHAPES.values())
OUTER_BYTES = 2 * 2 * VOCABULARY * HIDDEN
Shape = tuple[int, ...]


def main(folder: Path, gigabytes: float) -> None:
    """Write base and adapter."""
    layers = max(1, round((gigabytes * 1e9 - OUTER_BYTES) / LAYER_BYTES))
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{n}.weight": s for n, s in SHAPES.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (HIDDEN,)
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
    _write_base(folder / "base", shapes, layers)
    _write_adapter(folder / "adapter", layers)


def _write_base(folder: Path, shapes: dict[str, Shape], layers: int) -> None:
    folder.mkdir(parents=True)
    shards: list[dict[str, Shape]] = [{}]
    room = SHARD_BYTES
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        if size > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = shape
        room -= size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write(folder / file, shard, seed=number)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
        "dtype": "bfloat16", "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def _write_adapter(folder: Path, layers: int) -> None:
    folder.mkdir(parents=True)
    shapes: dict[str, Shape] = {}
    for layer in range(layers):
        for name, (rows, columns) in SHAPES.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            shapes[f"{key}.lora_A.weight"] = (RANK, columns)
            shapes[f"{key}.lora_B.weight"] = (rows, RANK)
    _write(folder / "adapter_model.safetensors", shapes, seed=0)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK,
        "target_modules": [name.rpartition(".")[2] for name in SHAPES],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _write(file: Path, shapes: dict[str, Shape], seed: int) -> None:
    random = np.random.default_rng(seed)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = random.standard_normal(shape, np.float32) * np.float32(0.02)
            stream.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
