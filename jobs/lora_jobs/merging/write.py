"""Streams the merged model to disk: blocks of rows, one rounding, hashed in the same pass.

Memory holds one block and one adapter pair, whatever the model's size. The folder appears under its
name by one rename at the end, so that a killed merge leaves nothing that looks finished.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lora_api.digests import FileDigest
from lora_api.jobcontract import Progress, Reason
from lora_jobs.context import ReportProgress
from lora_jobs.errors import Refused
from lora_jobs.merging.adapter import LoraTarget, read_adapter
from lora_jobs.merging.companions import copy_companions
from lora_jobs.merging.plan import Task, plan_merge
from lora_jobs.merging.tensors import ITEM_BYTES, Float32, NotFinite, Raw, narrow, widen
from lora_jobs.weightfiles import TensorEntry, tensors_of

BLOCK_BYTES = 8 * 2**20
"""Base bytes worked on at a time: large enough for BLAS, small enough for the cache and memory."""


@dataclass
class MergeReport:
    """What the merge did.

    Attributes:
        files: Every file of the output with its sha256.
        merged: Tensors that were changed.
        copied: Tensors that were taken as they are.
        delta_share: RMS of the update relative to the RMS of the weights it changed.
        unchanged_share: Fraction of the changed tensors' weights that rounding left as they were.
    """

    files: list[FileDigest] = field(default_factory=list)
    merged: int = 0
    copied: int = 0
    delta_share: float = 0.0
    unchanged_share: float = 0.0

    @property
    def message(self) -> str:
        """One line for status."""
        return (
            f"{self.merged} tensors merged, {self.copied} copied; the update is "
            f"{self.delta_share:.2%} of the weights, {self.unchanged_share:.1%} of them unchanged"
        )


@dataclass
class _Sums:
    """Running totals over the changed tensors."""

    weights_squared: float = 0.0
    delta_squared: float = 0.0
    unchanged: int = 0
    count: int = 0


def merge_adapter(base: Path, adapter: Path, output: Path, progress: ReportProgress) -> MergeReport:
    """Merge a LoRA adapter into its base.

    delta = scaling * B @ A is added in float32 and rounded once to the base's dtype.

    Args:
        base: Folder of the base model in safetensors.
        adapter: Folder of the PEFT adapter.
        output: Folder to make; it must not exist.
        progress: Told the bytes that are written.

    Raises:
        Refused: The adapter does not belong to the base or cannot be merged; nothing is left.
    """
    parsed = read_adapter(adapter)
    plan = plan_merge(tensors_of(base), parsed)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    total = sum(task.tensor.size for tasks in plan.values() for task in tasks)
    report, sums, done = MergeReport(), _Sums(), 0
    try:
        for file, tasks in plan.items():
            writer = _FileWriter(file, partial / file.name)
            for size in writer.write(tasks, sums):
                done += size
                progress(Progress(done=done, total=total, unit="bytes", message="merging"))
            report.files.append(writer.close())
            report.merged += sum(task.target is not None for task in tasks)
            report.copied += sum(task.target is None for task in tasks)
        report.files += copy_companions(base, adapter, partial)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    report.delta_share = float(np.sqrt(sums.delta_squared / max(sums.weights_squared, 1e-300)))
    report.unchanged_share = sums.unchanged / max(sums.count, 1)
    return report


class _FileWriter:
    """One output file: the base's header, then its tensors in order."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = source, target
        self._hash = hashlib.sha256()

    def write(self, tasks: list[Task], sums: _Sums) -> Iterator[int]:
        """Write everything; yields the size of each block that is through."""
        with self._source.open("rb") as source, self._target.open("wb") as target:
            self._put(target, source.read(tasks[0].tensor.offset))
            for task in tasks:
                blocks = _copied(source, task.tensor)
                if task.target is not None:
                    blocks = _merged(source, task.tensor, task.target, sums)
                for block in blocks:
                    self._put(target, block)
                    yield len(block)
            target.flush()
            os.fsync(target.fileno())

    def close(self) -> FileDigest:
        """The finished file's identity."""
        return FileDigest(self._target.name, self._target.stat().st_size, self._hash.hexdigest())

    def _put(self, target: BinaryIO, block: bytes | memoryview) -> None:
        self._hash.update(block)
        target.write(block)


def _copied(source: BinaryIO, tensor: TensorEntry) -> Iterator[bytes | memoryview]:
    source.seek(tensor.offset)
    left = tensor.size
    while left:
        block = source.read(min(left, BLOCK_BYTES))
        if not block:
            raise Refused(Reason.INVALID_INPUT, f"{tensor.file.name} is cut; upload it again")
        left -= len(block)
        yield block


def _merged(
    source: BinaryIO, tensor: TensorEntry, target: LoraTarget, sums: _Sums
) -> Iterator[bytes | memoryview]:
    a, b = _load(target.a), _load(target.b)
    rows, columns = tensor.shape
    row_bytes = columns * ITEM_BYTES[tensor.dtype]
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    for first in range(0, rows, step):
        last = min(first + step, rows)
        raw = _read(source, tensor, first * row_bytes, (last - first) * row_bytes)
        weights = widen(raw, tensor.dtype, (last - first, columns))
        delta = (b[first:last] @ a) * np.float32(target.scaling)
        sums.weights_squared += float(np.vdot(weights, weights))
        sums.delta_squared += float(np.vdot(delta, delta))
        weights += delta
        try:
            rounded = narrow(weights, tensor.dtype)
        except NotFinite:
            raise Refused(
                Reason.INVALID_INPUT,
                f"{tensor.name} is not finite in {tensor.dtype} once the adapter is added; the "
                "adapter or the base is broken",
            ) from None
        word = np.dtype(f"u{ITEM_BYTES[tensor.dtype]}")
        sums.unchanged += int((rounded.view(word) == raw.view(word)).sum())
        sums.count += weights.size
        yield rounded.data


def _load(tensor: TensorEntry) -> Float32:
    with tensor.file.open("rb") as file:
        return widen(_read(file, tensor, 0, tensor.size), tensor.dtype, tensor.shape)


def _read(file: BinaryIO, tensor: TensorEntry, offset: int, size: int) -> Raw:
    file.seek(tensor.offset + offset)
    data = file.read(size)
    if len(data) != size:
        raise Refused(Reason.INVALID_INPUT, f"{tensor.file.name} is cut; upload it again")
    return np.frombuffer(data, dtype=np.uint8)
