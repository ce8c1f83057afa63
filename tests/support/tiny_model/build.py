"""Builds the tiny model's folder: base, adapters, outlier pair, data sets, facts."""

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tiny_model import PROGRESS_MARK, corpus, outliers, training

TRAINED_LAYERS = 3
IDENTITY_LAYERS = 2
"""Blocks that add exactly nothing: they make a decode step long enough to stream on two cores,
and keep the quality of the trained ones."""
HELD_OUT = 104
FACT_ROWS = 32
BASE_STEPS, ADAPTER_STEPS, WRONG_STEPS = 420, 160, 20
RANK = 16
BASE_NAME = "tiny-llama"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(output: Path, *, steps_share: float = 1.0) -> None:
    """Train and write everything; about three minutes on two idle cores.

    Args:
        output: An empty folder.
        steps_share: Fraction of the usual training steps, for trials.
    """
    torch.set_num_threads(2)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{PROGRESS_MARK}[{time.monotonic() - started:4.0f} s] {text}", flush=True)

    def steps(count: int) -> int:
        return max(5, round(count * steps_share))

    say("reading the corpus")
    prose, code = corpus.prose(HELD_OUT), corpus.code(HELD_OUT)
    tokenizer = training.train_tokenizer(prose.train + code.train[:800])
    prose_rows = training.pack(tokenizer, prose.train)
    code_rows = training.pack(tokenizer, code.train[: 2 * HELD_OUT + 1200])

    say("training the base on prose, about a minute and a half")
    small = training.new_model(TRAINED_LAYERS)
    training.train_base(small, prose_rows, steps=steps(BASE_STEPS))
    base = _deepened(small).to(torch.bfloat16)
    base.save_pretrained(output / "base")
    tokenizer.save_pretrained(output / "base")

    say("training the adapter on code, about a minute")
    _train_adapter(base, code_rows, steps(ADAPTER_STEPS), output / "adapter")
    say("training the adapter of the wrong content")
    noise = code_rows[:, torch.randperm(code_rows.shape[1], generator=torch.manual_seed(0))]
    _train_adapter(base, noise, steps(WRONG_STEPS), output / "wrong-adapter")

    say("rescaling channels of the outlier pair")
    _write_outliers(output)
    _write_sets(output, prose, code)
    facts = _facts(output, tokenizer, prose, code) | {"seconds": round(time.monotonic() - started)}
    (output / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    say(f"done: {facts}")


def _deepened(small: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model with identity blocks at its end: what a block would add is multiplied by zero."""
    deep = training.new_model(TRAINED_LAYERS + IDENTITY_LAYERS)
    weights = small.state_dict()
    for layer in range(TRAINED_LAYERS, TRAINED_LAYERS + IDENTITY_LAYERS):
        for name, tensor in small.model.layers[TRAINED_LAYERS - 1].state_dict().items():
            silent = name in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
            weights[f"model.layers.{layer}.{name}"] = tensor * 0 if silent else tensor
    deep.load_state_dict(weights)
    return deep


def _train_adapter(base: LlamaForCausalLM, rows: torch.Tensor, steps: int, output: Path) -> None:
    trained = LlamaForCausalLM.from_pretrained(output.parent / "base", dtype=torch.float32)
    torch.manual_seed(1)
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=TARGETS,
        layers_to_transform=list(range(TRAINED_LAYERS)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(trained, config)
    # Identity blocks cost time and learn nothing: train without them.
    layers = trained.model.layers
    trained.model.layers = layers[:TRAINED_LAYERS]
    training.train_adapter(model, rows, steps=steps, label=output.name)
    trained.model.layers = layers
    model.save_pretrained(output)
    path = output / "adapter_config.json"
    # PEFT keeps the modules as a set: in no order of its own.
    fixed = {"base_model_name_or_path": BASE_NAME, "target_modules": TARGETS}
    written = json.loads(path.read_text()) | fixed
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    (output / "README.md").unlink(missing_ok=True)


def _write_outliers(output: Path) -> None:
    base = load_file(output / "base/model.safetensors")
    adapter = load_file(output / "adapter/adapter_model.safetensors")
    config = json.loads((output / "base/config.json").read_text())
    shape = (
        TRAINED_LAYERS,
        config["head_dim"],
        config["num_attention_heads"] // config["num_key_value_heads"],
    )
    for name in ("base", "adapter"):
        shutil.copytree(output / name, output / f"outlier-{name}")
    save_file(
        outliers.outlier_base(base, *shape),
        output / "outlier-base/model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    save_file(
        outliers.outlier_adapter(adapter, base, *shape),
        output / "outlier-adapter/adapter_model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip


def _write_sets(output: Path, prose: corpus.Corpus, code: corpus.Corpus) -> None:
    sets = {
        "calibration": code.train[-160:],
        "task": code.held_out,
        "general": prose.held_out,
    }
    for name, documents in sets.items():
        lines = (json.dumps({"text": document}) + "\n" for document in documents)
        (output / f"{name}.jsonl").write_text("".join(lines))


def _facts(
    output: Path, tokenizer: PreTrainedTokenizerFast, prose: corpus.Corpus, code: corpus.Corpus
) -> dict[str, Any]:
    """Perplexities on a part of the held-out sets, in bf16: what must hold, not a measurement."""
    task = training.pack(tokenizer, code.held_out)[:FACT_ROWS]
    general = training.pack(tokenizer, prose.held_out)[:FACT_ROWS]
    facts: dict[str, Any] = {}

    def measure(name: str, model: Any) -> None:
        facts[f"{name}/task"] = round(math.exp(training.mean_nll(model, task)), 2)
        facts[f"{name}/general"] = round(math.exp(training.mean_nll(model, general)), 2)

    for base, adapters in (
        ("base", ("adapter", "wrong-adapter")),
        ("outlier-base", ("outlier-adapter",)),
    ):
        model: Any = LlamaForCausalLM.from_pretrained(output / base, dtype=torch.bfloat16).eval()
        measure(base, model)
        for adapter in adapters:
            measure(adapter, PeftModel.from_pretrained(model, output / adapter).merge_and_unload())
            model = LlamaForCausalLM.from_pretrained(output / base, dtype=torch.bfloat16).eval()
    return facts


if __name__ == "__main__":
    build(Path(sys.argv[1]))
