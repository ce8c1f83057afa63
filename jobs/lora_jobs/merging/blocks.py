"""The bytes of an output tensor, block by block: the base's as they are, or with the update added.

DoRA (Liu et al. 2024, eq. 5) gives every output of the updated layer the norm m that was trained:
W' = m / ||W + scaling B A|| * (W + scaling B A), the norm taken over the inputs of each output.
Those lie in a row of a linear layer; in a weight that is stored as (in, out) they lie in a column,
so that it is gone through twice.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedReader

import numpy as np

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.hashedfile import Block, Room
from lora_jobs.merging.matrices import read_into, read_rows
from lora_jobs.merging.nf4 import BLOCK, largest_magnitudes, stored_scales, through_nf4
from lora_jobs.merging.plan import Task
from lora_jobs.merging.report import Effect
from lora_jobs.merging.tensors import (
    ITEM_BYTES,
    Float32,
    Float64,
    NotFinite,
    Raw,
    count_equal,
    narrow,
    sum_of_squares,
    widen,
)
from lora_jobs.merging.updates import Added, open_update
from lora_jobs.weightfiles import TensorEntry

COPY_BYTES = 2**20
BLOCK_WEIGHTS = 2**19
"""Weights merged at a time: few enough for the CPU's cache, enough to keep it busy."""
LEAST_ROWS = 32
"""Of wide tensors too, so that going through lora_A once more pays off."""


def blocks_of(task: Task, effect: Effect, room: Room) -> Iterator[Block]:
    """The bytes of a task's tensor in order.

    Args:
        task: What to do.
        effect: Totals, added to.
        room: Gives memory for a block that is used again once the block is through.

    Raises:
        Refused: A file is cut, or a value is not finite.
    """
    with ExitStack() as stack:
        source = stack.enter_context(task.source.file.open("rb"))
        if task.is_copied:
            yield from copied_blocks(source, task.source.offset, task.source.size, room)
        else:
            yield from _Merge(task, source, stack, effect, room).blocks()


def copied_blocks(file: BufferedReader, offset: int, size: int, room: Room) -> Iterator[Block]:
    """`size` bytes of a file from `offset` on.

    Raises:
        Refused: It ends before.
    """
    for start in range(0, size, COPY_BYTES):
        block = room(min(COPY_BYTES, size - start))
        read_into(file, offset + start, block)
        yield block


class _Merge:
    """One tensor that changes, as a matrix: a vector is a column."""

    def __init__(
        self, task: Task, source: BufferedReader, stack: ExitStack, effect: Effect, room: Room
    ) -> None:
        self._task, self._source, self._effect, self._room = task, source, effect, room
        self._memory = np.empty(0, np.uint8)
        self._columns = task.shape[1] if len(task.shape) == 2 else 1
        self._rows = math.prod(task.shape) // max(self._columns, 1)
        self._update = open_update(task, stack)
        self._before = stack.enter_context(task.before.file.open("rb"))
        is_changed = task.magnitude or task.rows or task.is_nf4
        self._is_sum = task.source == task.before and not is_changed
        self._is_bf16 = (task.source.dtype, task.dtype) == ("BF16", "BF16")
        self._nf4_scales = self._scales_of_nf4() if task.is_nf4 else None

    def blocks(self) -> Iterator[Block]:
        """The merged bytes."""
        scales = self._column_scales()
        for first, count in self._row_blocks():
            # What overflows is judged by `narrow`.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                rounded = self._block(first, count, scales)
            yield rounded

    def _block(self, first: int, count: int, scales: Float64 | None) -> Raw:
        """The rounded bytes of some rows; `scales` are DoRA's, where they are by column."""
        task = self._task
        raw = self._read_again(first, count)
        if added := self._added(raw, first, count):
            self._record(added)
            return added.rounded
        weights = self._widened(raw, first, count)
        total, delta_squared = self._sum(weights, first)
        if scales is not None:
            total *= scales
        elif task.magnitude is not None:
            with task.magnitude.file.open("rb") as file:
                magnitudes = read_rows(file, task.magnitude, first, count)
            total *= magnitudes / np.sqrt(np.einsum("ij,ij->i", total, total))[:, np.newaxis]
        self._replace_rows(total, first)
        rounded = self._round(total)
        if self._is_sum:
            unchanged = count_equal(rounded, raw, task.dtype)
            self._record(Added(rounded, sum_of_squares(weights), delta_squared, unchanged))
        else:
            self._compare(rounded, total, first)
        return rounded

    def _added(self, raw: Raw, first: int, count: int) -> Added | None:
        """The sum by the fast way; None where it cannot be gone."""
        if self._update is None or not (self._is_sum and self._is_bf16):
            return None
        return self._update.add_to(raw, first, count, self._room(len(raw)))

    def _widened(self, raw: Raw, first: int, count: int) -> Float32:
        """Rows of the source as the adapter saw them."""
        dtype, shape = self._task.source.dtype, (count, self._columns)
        weights = widen(raw, dtype, shape)
        if self._nf4_scales is None:
            return weights
        blocks = self._columns // BLOCK
        scales = self._nf4_scales[first * blocks : (first + count) * blocks]
        return widen(narrow(through_nf4(weights, scales), dtype), dtype, shape)

    def _scales_of_nf4(self) -> Float32:
        """Of the whole tensor: its scales are quantized together, so it is gone through first."""
        source = self._task.source
        magnitudes = [
            largest_magnitudes(
                widen(
                    self._read(self._source, source, first, count),
                    source.dtype,
                    (count, self._columns),
                )
            )
            for first, count in self._row_blocks()
        ]
        return stored_scales(np.concatenate(magnitudes))

    def _sum(self, weights: Float32, first: int) -> tuple[Float64, float]:
        """Weights + update, and the sum of the update's squares."""
        if self._update is None:
            return weights.astype(np.float64), 0.0
        total, squared = self._update.rows(first, len(weights))
        total += weights
        return total, squared

    def _column_scales(self) -> Float64 | None:
        """DoRA's magnitudes over the norms of the columns, (columns,); None where not needed."""
        task = self._task
        if task.magnitude is None or not task.is_transposed:
            return None
        squares = np.zeros(self._columns)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for first, count in self._row_blocks():
                raw = self._read(self._source, task.source, first, count)
                weights = widen(raw, task.source.dtype, (count, self._columns))
                total, _ = self._sum(weights, first)
                squares += np.einsum("ij,ij->j", total, total)
            with task.magnitude.file.open("rb") as file:
                magnitudes = read_rows(file, task.magnitude, 0, self._columns)[:, 0]
            scales: Float64 = magnitudes / np.sqrt(squares)
        return scales

    def _replace_rows(self, total: Float64, first: int) -> None:
        """Trainable tokens take the place of their rows."""
        tokens = self._task.rows
        if tokens is None:
            return
        for number, index in enumerate(tokens.indices):
            if first <= index < first + len(total):
                with tokens.rows.file.open("rb") as file:
                    total[index - first] = read_rows(file, tokens.rows, number, 1)[0]

    def _round(self, total: Float64) -> Raw:
        name, dtype = self._task.name, self._task.dtype
        try:
            return narrow(total, dtype)
        except NotFinite:
            raise Refused(
                Reason.INVALID_INPUT,
                f"{name} is not finite in {dtype} once the adapter is added: the adapter or the "
                "base holds NaN, infinity or too large values; name ones that do not",
            ) from None

    def _compare(self, rounded: Raw, total: Float64, first: int) -> None:
        """Take what changed from the base itself; it has nothing to say of new rows."""
        before = self._task.before
        rows = before.shape[0] if before.shape else 1
        count = min(len(total), rows - first)
        if count <= 0:
            return
        raw = self._read(self._before, before, first, count)
        weights = widen(raw, before.dtype, (count, self._columns))
        delta = total[:count] - weights
        self._effect.delta_squared += float(np.vdot(delta, delta))
        self._effect.weights_squared += sum_of_squares(weights)
        self._effect.weights += len(raw) // ITEM_BYTES[self._task.dtype]
        self._effect.unchanged += count_equal(rounded[: len(raw)], raw, self._task.dtype)

    def _record(self, added: Added) -> None:
        self._effect.delta_squared += added.delta_squared
        self._effect.weights_squared += added.weights_squared
        self._effect.weights += len(added.rounded) // ITEM_BYTES[self._task.dtype]
        self._effect.unchanged += added.unchanged

    def _read(self, file: BufferedReader, tensor: TensorEntry, first: int, count: int) -> Raw:
        row_bytes = self._columns * ITEM_BYTES[tensor.dtype]
        raw = np.empty(count * row_bytes, np.uint8)
        read_into(file, tensor.offset + first * row_bytes, raw)
        return raw

    def _read_again(self, first: int, count: int) -> Raw:
        """Rows of the source, where those that were read before them lay."""
        source = self._task.source
        row_bytes = self._columns * ITEM_BYTES[source.dtype]
        if len(self._memory) < count * row_bytes:
            self._memory = np.empty(count * row_bytes, np.uint8)
        raw = self._memory[: count * row_bytes]
        read_into(self._source, source.offset + first * row_bytes, raw)
        return raw

    def _row_blocks(self) -> Iterator[tuple[int, int]]:
        """First row and number of rows of each block."""
        step = max(LEAST_ROWS, BLOCK_WEIGHTS // max(self._columns, 1))
        for first in range(0, self._rows, step):
            yield first, min(step, self._rows - first)
