"""GPTQ by GPTQModel: the one module that imports it for its work.

    16-bit model + rows of token ids -> raw model in a work folder -> canonical artifact

Traps: GPTQModel reads its thread count when it is imported, writes a `logs` folder into the current
directory, prints to stdout, and tokenizes text with a second BOS (so it gets token ids).
"""

import gc
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lora_api.jobcontract import Progress
from lora_jobs.context import ReportProgress
from lora_jobs.pretrained import read_config
from lora_jobs.quantizing.admission import (
    modules_to_quantize,
    refuse_unsupported,
    refuse_wrong_outcome,
)
from lora_jobs.quantizing.canonical import canonicalise
from lora_jobs.quantizing.report import ModuleOutcome, QuantizeReport, outcomes
from lora_jobs.torchruntime import quiet_stdout
from lora_jobs.weightfiles import tensors_of

TOOLS = ("gptqmodel", "torch", "transformers", "safetensors")
LARGE_WEIGHTS = 1_000_000_000
"""From here GPTQModel's compiled packer pays for the minute that it takes to compile."""


def quantize_model(
    model: Path,
    rows: Sequence[Sequence[int]],
    output: Path,
    *,
    bits: int,
    group_size: int,
    damping: str,
    progress: ReportProgress,
) -> QuantizeReport:
    """Quantize a 16-bit model into a folder whose bytes depend on the arguments only.

    Equal arguments give equal bytes on one kind of device with one number of threads.

    Args:
        model: The merged model.
        rows: Token ids, all rows of one length.
        output: An empty or missing folder.
        bits: Of each weight.
        group_size: Input columns that share one scale.
        damping: GPTQ's damp_percent, a decimal fraction.
        progress: Told after every layer.

    Raises:
        Refused: The model's architecture or shapes cannot be quantized.
    """
    started = time.monotonic()
    refuse_unsupported(read_config(model))
    weights = modules_to_quantize(tensors_of(model), group_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="gptq-") as folder:
        raw = Path(folder) / "raw"
        settings = {
            "bits": bits,
            "group_size": group_size,
            "damp_percent": float(damping),
            "device": device,
            "pack_impl": "cpu" if sum(weights.values()) >= LARGE_WEIGHTS else "original",
            "offload_to_disk_path": f"{folder}/offload",
        }
        found = _run_gptqmodel(model, rows, raw, settings, progress)
        refuse_wrong_outcome(tensors_of(raw), weights)
        canonicalise(raw, model, output, [m.row() for m in found])
    return QuantizeReport(
        bits=bits,
        group_size=group_size,
        damping=damping,
        modules=found,
        bits_per_weight=_bits_per_weight(output, weights),
        calibration_tokens=sum(len(row) for row in rows),
        device=device,
        seconds=time.monotonic() - started,
        tools={tool: version(tool) for tool in TOOLS},
    )


def _run_gptqmodel(
    model: Path,
    rows: Sequence[Sequence[int]],
    raw: Path,
    settings: dict[str, Any],
    progress: ReportProgress,
) -> tuple[ModuleOutcome, ...]:
    with quiet_stdout():
        from gptqmodel import GPTQConfig, GPTQModel
        from gptqmodel.looper import loop_processor

        loop_processor._PROJECT_LOG_DIR = raw.parent / "logs"
        # Left at their defaults: act_group_aware (the accuracy of act-order without its
        # permutation at run time, which engines refuse) and the fallback, which the report counts.
        config = GPTQConfig(sym=True, desc_act=False, lm_head=False, **settings)
        quantizer = GPTQModel.load(str(model), config, trust_remote_code=False)
        quantizer.layer_callback = _LayerProgress(quantizer, progress)
        calibration = [{"input_ids": list(row), "attention_mask": [1] * len(row)} for row in rows]
        quantizer.quantize(calibration, batch_size=1, calibration_sort=None)
        found = outcomes(quantizer.quant_log)
        quantizer.save(str(raw))
    del quantizer
    gc.collect()
    return found


class _LayerProgress:
    """GPTQModel's layer callback, as progress with an ETA."""

    def __init__(self, quantizer: Any, progress: ReportProgress) -> None:
        self.total = int(quantizer.model.config.get_text_config().num_hidden_layers)
        self.progress = progress
        self.started = time.monotonic()

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        """Called twice a layer: when it is solved, and when it is packed."""
        if not submodule_finalized:
            return
        done = layer_idx + 1
        eta = (time.monotonic() - self.started) / done * (self.total - done)
        self.progress(
            Progress(
                done=done,
                total=self.total,
                unit="layers",
                eta_seconds=round(eta),
                message=f"layer {done} of {self.total}",
            )
        )


def _bits_per_weight(output: Path, weights: dict[str, int]) -> float:
    packed = tuple(f"{module}." for module in weights)
    size = sum(t.size for name, t in tensors_of(output).items() if name.startswith(packed))
    return size * 8 / sum(weights.values())
