"""Stage quantize in a process of its own, which can end by a signal in the middle of a layer.

    python interrupted_quantize.py FOLDER STORE SIGNAL LAYER

FOLDER holds what `prepare` wrote; STORE is a folder. When LAYER is done and, where there is a layer
before it, that one's checkpoint is in the store, the process sends SIGNAL to itself.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from lora_api.jobcontract import Progress, Stage, StageResult
from lora_api.layout import checkpoint
from lora_api.parameters import QuantizeParameters
from lora_jobs.context import ReportProgress, StageContext
from stagecontexts import FolderInputs, MemoryOutputs, digest_of_folder, stage_context
from tinyllama import sentences, write_llama, write_texts

LAYERS = 3
PARAMETERS = QuantizeParameters(
    bits=4, group_size=32, damping="0.05", samples=4, sequence_length=64
).to_hashed()


def prepare(folder: Path) -> Path:
    """A random model and a calibration set."""
    write_llama(folder / "merged", layers=LAYERS)
    (folder / "calibration").mkdir()
    write_texts(folder / "calibration" / "records.jsonl", *sentences(30))
    return folder


def context_of(folder: Path, store: Path, work: Path, progress: list[Progress]) -> StageContext:
    """The stage's context; equal for all runs but for where its store and its work lie."""
    merged, calibration = folder / "merged", folder / "calibration"
    digest = digest_of_folder(merged)
    store.mkdir(exist_ok=True)
    return stage_context(
        Stage.QUANTIZE,
        PARAMETERS,
        FolderInputs({"calibration0": calibration}, {digest: merged}),
        MemoryOutputs(store),
        work,
        {"merged": digest, "calibration0": digest_of_folder(calibration)},
        progress,
    )


def stored_checkpoint(context: StageContext) -> list[str]:
    """Keys of the checkpoint that lies in the store."""
    call = context.request.call
    place = context.outputs.below(checkpoint(call.stage, call.input_hash))
    return [found.key for found in place.list()]


def run(context: StageContext) -> StageResult:
    """The stage, heavy imports and all."""
    from lora_jobs.stages import quantize

    return quantize.run(context)


def environment() -> dict[str, str]:
    """For the process: it imports what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


class _Interrupt:
    """Progress that ends the process."""

    def __init__(self, number: int, layer: int) -> None:
        self.number, self.layer = number, layer
        self.context: StageContext | None = None

    def __call__(self, progress: Progress) -> None:
        assert self.context is not None
        if progress.done != self.layer:
            return
        while self.layer > 1 and "CURRENT" not in stored_checkpoint(self.context):
            threading.Event().wait(0.05)
        os.kill(os.getpid(), self.number)


def main(folder: Path, store: Path, number: int, layer: int) -> None:
    """Run until the signal."""
    from dataclasses import replace

    from lora_jobs.termination import end_promptly_on_sigterm

    end_promptly_on_sigterm()
    interrupt = _Interrupt(number, layer)
    context = context_of(folder, store, folder / f"work-{number}", [])
    report: ReportProgress = interrupt
    interrupt.context = replace(context, progress=report)
    run(interrupt.context)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), signal.Signals[sys.argv[3]], int(sys.argv[4]))
