"""GPTQ and AWQ by GPTQModel: the one module that imports it for its work.

    16-bit model + rows of token ids -> raw model in a work folder -> canonical artifact

Traps: GPTQModel reads its thread count when it is imported, writes a `logs` folder into the current
directory, prints to stdout, and tokenizes text with a second BOS (so it gets token ids).
"""

import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from lora_api.jobcontract import Progress
from lora_api.spec import QuantizationMethod
from lora_jobs.context import ReportProgress
from lora_jobs.pretrained import read_config
from lora_jobs.quantizing.admission import (
    modules_to_quantize,
    refuse_unsupported,
    refuse_wrong_outcome,
)
from lora_jobs.quantizing.canonical import canonicalise
from lora_jobs.quantizing.checkpoints import from_checkpoint, why_no_checkpoints
from lora_jobs.quantizing.report import ModuleOutcome, QuantizeReport, outcomes, worst_of
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
    method: QuantizationMethod = QuantizationMethod.GPTQ,
    checkpoint: Path | None = None,
) -> QuantizeReport:
    """Quantize a 16-bit model into a folder whose bytes depend on the arguments only.

    Equal arguments give equal bytes on one kind of device with one number of threads, also where a
    run was killed and went on from its checkpoint.

    Args:
        model: The merged model.
        rows: Token ids, all rows of one length.
        output: An empty or missing folder.
        bits: Of each weight.
        group_size: Input columns that share one scale.
        damping: GPTQ's damp_percent, a decimal fraction; without meaning for AWQ.
        progress: Told after every layer.
        method: GPTQ or AWQ.
        checkpoint: Where finished layers are kept until the end; a run with equal arguments that
            finds some there goes on after them. Left alone where `why_no_checkpoints`.

    Raises:
        Refused: The model's architecture or shapes cannot be quantized.
        SystemExit: SIGTERM came; what is finished lies in the checkpoint.
    """
    started = time.monotonic()
    refuse_unsupported(read_config(model))
    unkept = why_no_checkpoints(model, method) if checkpoint else ""
    if unkept:
        checkpoint = None
    weights = modules_to_quantize({n: t.shape for n, t in tensors_of(model).items()}, group_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="gptq-") as folder:
        raw = Path(folder) / "raw"
        settings = {
            "bits": bits,
            "group_size": group_size,
            "device": device,
            "pack_impl": "cpu" if sum(weights.values()) >= LARGE_WEIGHTS else "original",
            "offload_to_disk_path": f"{folder}/offload",
        }
        if method is QuantizationMethod.GPTQ:
            settings["damp_percent"] = float(damping)
        run = partial(_run_gptqmodel, method, model, rows, raw, settings, progress)
        found = from_checkpoint(checkpoint, run) if checkpoint else run(None)
        refuse_wrong_outcome(tensors_of(raw), weights)
        canonicalise(raw, model, output, [m.row() for m in found])
    return QuantizeReport(
        bits=bits,
        group_size=group_size,
        damping=damping if method is QuantizationMethod.GPTQ else "",
        modules=found,
        bits_per_weight=_bits_per_weight(output, weights),
        calibration_tokens=sum(len(row) for row in rows),
        device=device,
        seconds=time.monotonic() - started,
        tools={tool: version(tool) for tool in TOOLS},
        no_checkpoints=unkept,
    )


def _run_gptqmodel(
    method: QuantizationMethod,
    model: Path,
    rows: Sequence[Sequence[int]],
    raw: Path,
    settings: dict[str, Any],
    progress: ReportProgress,
    checkpoint: Path | None,
) -> tuple[ModuleOutcome, ...]:
    with quiet_stdout():
        from gptqmodel import BACKEND, AWQConfig, CheckpointConfig, GPTQConfig, GPTQModel
        from gptqmodel.looper import loop_processor

        loop_processor._PROJECT_LOG_DIR = raw.parent / "logs"
        # Left at their defaults: act_group_aware (the accuracy of act-order without its
        # permutation at run time, which engines refuse) and the fallback, which the report counts.
        if method is QuantizationMethod.AWQ:
            # With zero points, as engines expect of AWQ.
            config = AWQConfig(sym=False, desc_act=False, lm_head=False, **settings)
            # Its own choice packs on CUDA alone; this one writes the same layout on every device.
            backend = BACKEND.AWQ_TORCH
        else:
            config = GPTQConfig(sym=True, desc_act=False, lm_head=False, **settings)
            backend = BACKEND.AUTO
        quantizer = GPTQModel.load(str(model), config, trust_remote_code=False)
        quantizer.layer_callback = _LayerProgress(quantizer, progress)
        calibration = [{"input_ids": list(row), "attention_mask": [1] * len(row)} for row in rows]
        # Another GPU of the same product may go on: a replaced pod seldom gets the same one.
        kept = CheckpointConfig(path=checkpoint, strict_device_check=False) if checkpoint else None
        with _log_of_running(quantizer):
            quantizer.quantize(
                calibration,
                batch_size=1,
                calibration_sort=None,
                backend=backend,
                checkpoint=kept,
            )
        found = outcomes(quantizer.quant_log)
        quantizer.save(str(raw))
    del quantizer
    gc.collect()
    return found


@contextmanager
def _log_of_running(quantizer: Any) -> Iterator[None]:
    """Let `quantizer.quant_log` be the running log; GPTQModel hands it over only at the end."""
    from gptqmodel.looper.loop_processor import LoopProcessor

    add_row = LoopProcessor.log_new_row

    def add_row_in_sight(processor: Any, row: Any) -> None:
        quantizer.quant_log = processor.log
        add_row(processor, row)

    with patch.object(LoopProcessor, "log_new_row", add_row_in_sight):
        yield


class _LayerProgress:
    """GPTQModel's layer callback, as progress with an ETA and the loss so far."""

    def __init__(self, quantizer: Any, progress: ReportProgress) -> None:
        self.quantizer = quantizer
        self.total = int(quantizer.model.config.get_text_config().num_hidden_layers)
        self.progress = progress
        self.started = time.monotonic()
        self.first: int | None = None

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        """Called twice a layer: when it is solved, and when it is packed."""
        if self.first is None:
            self.first = layer_idx  # not 0 where a checkpoint had the layers before
        if not submodule_finalized:
            return
        done = layer_idx + 1
        pace = (time.monotonic() - self.started) / (done - self.first)
        worst = worst_of(outcomes(list(self.quantizer.quant_log)))
        loss = f", worst loss {worst.short_loss} at {worst.name}" if worst else ""
        self.progress(
            Progress(
                done=done,
                total=self.total,
                unit="layers",
                eta_seconds=round(pace * (self.total - done)),
                message=f"layer {done} of {self.total}{loss}",
            )
        )


def _bits_per_weight(output: Path, weights: dict[str, int]) -> float:
    packed = tuple(f"{module}." for module in weights)
    size = sum(t.size for name, t in tensors_of(output).items() if name.startswith(packed))
    return size * 8 / sum(weights.values())
