"""Runs the merge: adapter, plan, companions, then every byte of the output, once.

Memory holds a few blocks and one lora_A, whatever the model's size. The folder appears under its
name by one rename at the end, so that a killed merge leaves nothing that looks finished.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Lock

from lora_api.jobcontract import Progress
from lora_api.spec import BaseWeights
from lora_jobs.context import ReportProgress
from lora_jobs.merging.adapter import read_adapter
from lora_jobs.merging.blocks import blocks_of, copied_blocks
from lora_jobs.merging.changes import Weighted
from lora_jobs.merging.companions import Companions, plan_companions, read_config
from lora_jobs.merging.hashedfile import HashedFile
from lora_jobs.merging.headers import header_of
from lora_jobs.merging.plan import MergePlan, Task, plan_merge
from lora_jobs.merging.qlora import with_nf4_base
from lora_jobs.merging.report import (
    NO_EFFECT,
    Effect,
    MergeReport,
    delta_to_weights,
    unchanged_fraction,
)
from lora_jobs.store.interface import FileHash
from lora_jobs.weightfiles import tensors_of

Through = Callable[[int], None]
TOLD_BYTES = 32 * 2**20
"""Between two lines of progress."""
SHARDS_AT_ONCE = min(4, len(os.sched_getaffinity(0)))
"""A shard is computed, hashed and written by three threads, of which one is always the slowest."""


def merge_adapters(
    base: Path,
    adapters: Sequence[tuple[Path, float]],
    output: Path,
    progress: ReportProgress,
    base_weights: BaseWeights = BaseWeights.ORIGINAL,
) -> MergeReport:
    """Merge LoRA adapters into their base.

    W + sum of weight * scaling * B @ A is summed in float64 and rounded once to the base's dtype.
    Equal inputs give equal bytes, on every kind of CPU.

    Args:
        base: Folder of the base model in safetensors.
        adapters: Folder of each PEFT adapter, and its weight in the sum.
        output: Folder to make; it must not exist or be empty.
        progress: Told the bytes that are through, of all tensors.
        base_weights: What the adapters were trained on.

    Raises:
        Refused: An adapter does not belong to the base or cannot be merged; nothing is left.
        OSError: A file cannot be read or written, e.g. the disk is full; nothing is left.
    """
    parsed = [Weighted(read_adapter(adapter), weight) for adapter, weight in adapters]
    config = read_config(base)
    plan = plan_merge(tensors_of(base), parsed, config)
    if base_weights is BaseWeights.DEQUANTIZED_NF4:
        plan = with_nf4_base(plan, config)
    companions = plan_companions(base, [folder for folder, _ in adapters], config, plan)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    effect = Effect()
    try:
        files = dict(_write_weights(plan, partial, effect, _counting(progress, plan.total_bytes)))
        files |= _write_companions(companions, partial)
        _flush_folder(partial)
        partial.rename(output)
        _flush_folder(output.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return MergeReport(
        files=files,
        merged=plan.merged,
        copied=plan.copied,
        delta_to_weights=delta_to_weights(effect),
        unchanged_fraction=unchanged_fraction(effect),
        notes=_notes(parsed, companions, effect),
    )


def merge_adapter(base: Path, adapter: Path, output: Path, progress: ReportProgress) -> MergeReport:
    """`merge_adapters` of one, of weight 1."""
    return merge_adapters(base, ((adapter, 1.0),), output, progress)


def _write_weights(
    plan: MergePlan, folder: Path, effect: Effect, through: Through
) -> Iterator[tuple[str, FileHash]]:
    """Some shards at a time; one reaches the disk while others are computed."""
    with (
        ThreadPoolExecutor(1, "flush") as flushing,
        ThreadPoolExecutor(SHARDS_AT_ONCE, "shard") as filling,
    ):
        has_failed = Event()

        def unless_failed(size: int) -> None:
            if has_failed.is_set():
                raise CancelledError
            through(size)

        def write(source: Path, tasks: tuple[Task, ...]) -> tuple[Effect, Future[FileHash]]:
            of_shard = Effect()
            shard = _filled_shard(source, tasks, folder / source.name, of_shard, unless_failed)
            return of_shard, flushing.submit(_closed, shard)

        shards = [(source, filling.submit(write, source, t)) for source, t in plan.files.items()]
        try:
            for source, shard in shards:
                of_shard, closed = shard.result()
                effect.add(of_shard)
                yield source.name, closed.result()
        except BaseException:  # an interrupt too: the other shards end at their next block
            has_failed.set()
            filling.shutdown(wait=False, cancel_futures=True)
            raise


def _filled_shard(
    source: Path, tasks: tuple[Task, ...], target: Path, effect: Effect, through: Through
) -> HashedFile:
    """A file that was given all its bytes and is still to be closed."""
    with ExitStack() as unless_filled:
        file = unless_filled.enter_context(HashedFile(target))
        file.put(header_of(source, tasks))
        for task in tasks:
            for block in blocks_of(task, effect, file.room):
                file.put(block)
                through(len(block))
        unless_filled.pop_all()
        return file


def _closed(file: HashedFile) -> FileHash:
    with file:
        return file.close()


def _write_companions(companions: Companions, folder: Path) -> Iterator[tuple[str, FileHash]]:
    for name, source in companions.sources.items():
        with source.open("rb") as stream, HashedFile(folder / name) as file:
            for block in copied_blocks(stream, 0, source.stat().st_size, file.room):
                file.put(block)
            yield name, file.close()
    for name, document in companions.documents.items():
        with HashedFile(folder / name) as file:
            file.put(document)
            yield name, file.close()


def _counting(progress: ReportProgress, total: int) -> Through:
    """Tells the first block, each `TOLD_BYTES` and the end: all threads wait for who tells."""
    done, told, one_at_a_time = 0, -TOLD_BYTES, Lock()

    def through(size: int) -> None:
        nonlocal done, told
        with one_at_a_time:
            done += size
            if done == total or done - told >= TOLD_BYTES:
                told = done
                progress(Progress(done=done, total=total, unit="bytes", message="merging"))

    return through


def _flush_folder(folder: Path) -> None:
    """Names are on the disk only when their folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _notes(adapters: Sequence[Weighted], companions: Companions, effect: Effect) -> dict[str, str]:
    notes = dict(companions.notes)
    trained_on = dict.fromkeys(w.adapter.trained_on for w in adapters if w.adapter.trained_on)
    if trained_on:
        notes["trainedOn"] = ", ".join(trained_on)[:200]
    if not effect.delta_squared:
        notes["effect"] = NO_EFFECT
    return notes
