"""Models, adapters and data sets of a few kilobytes, right in form and without meaning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN = 128
PREFIX = "base_model.model.model.layers.0.self_attn"


def write_base(folder: Path, hidden: int = HIDDEN, shards: int = 1) -> Path:
    """A base with one attention layer; with shards, an index beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkvo"]
    tensors = {name: np.ones((hidden, hidden), np.float32) for name in names}
    tensors["model.embed_tokens.weight"] = np.ones((16, hidden), np.float32)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": hidden}))
    (folder / "tokenizer.json").write_text("{}")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_adapter(folder: Path, hidden: int = HIDDEN, rank: int = 2, **config: Any) -> Path:
    """A LoRA adapter on q_proj and v_proj."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(document))
    tensors = {}
    for name in ("q_proj", "v_proj"):
        tensors[f"{PREFIX}.{name}.lora_A.weight"] = np.ones((rank, hidden), np.float32)
        tensors[f"{PREFIX}.{name}.lora_B.weight"] = np.ones((hidden, rank), np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_records(file: Path, *texts: str) -> Path:
    """A data set of JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def write_sources(folder: Path) -> Path:
    """All sources that a run needs: base, adapter, calibration.jsonl, task.jsonl."""
    write_base(folder / "base")
    write_adapter(folder / "adapter")
    write_records(folder / "calibration.jsonl", "seen", "by quantization")
    write_records(folder / "task.jsonl", "held", "out")
    return folder


def local_spec(folder: Path, store: Path) -> dict[str, Any]:
    """The spec of a local run over `write_sources`."""
    return {
        "baseModel": {"uri": f"file://{folder}/base"},
        "adapters": [{"uri": f"file://{folder}/adapter"}],
        "quantization": {
            "calibration": {"sources": [{"uri": f"file://{folder}/calibration.jsonl"}]}
        },
        "evaluation": {"task": {"uri": f"file://{folder}/task.jsonl"}},
        "artifact": {"uri": f"file://{store}"},
        "serving": {"runtime": "Transformers", "accelerator": {"resource": "None"}},
    }
