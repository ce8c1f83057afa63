"""The bytes of an output tensor, block by block: the base's as they are, or with the update added.

Files are read with plain reads: a mapped file would count as memory, page by page.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.adapter import LoraTarget
from lora_jobs.merging.hashedfile import Block
from lora_jobs.merging.plan import Task
from lora_jobs.merging.report import Effect
from lora_jobs.merging.tensors import (
    ITEM_BYTES,
    Float64,
    NotFinite,
    Raw,
    count_equal,
    narrow,
    squared_norm,
    sum_of_squares,
    widen,
)
from lora_jobs.weightfiles import TensorEntry

COPY_BYTES = 2**20
BLOCK_WEIGHTS = 2**18
"""Weights merged at a time: what is computed of them in float64 stays in the CPU's cache."""
LEAST_ROWS = 32
"""Of wide tensors too, so that going through lora_A once more pays off."""


def blocks_of(task: Task, base: BinaryIO, effect: Effect) -> Iterator[Block]:
    """The bytes of a task's tensor in order.

    Args:
        task: What to do.
        base: The file of the base that holds the tensor.
        effect: Totals, added to.

    Raises:
        Refused: The file is cut, or a value is not finite.
    """
    if task.target is None:
        return copied_blocks(base, task.tensor.offset, task.tensor.size)
    return _merged_blocks(base, task.tensor, task.target, effect)


def copied_blocks(file: BinaryIO, offset: int, size: int) -> Iterator[Block]:
    """`size` bytes of a file from `offset` on.

    Raises:
        Refused: It ends before.
    """
    for start in range(0, size, COPY_BYTES):
        yield _read(file, offset + start, min(COPY_BYTES, size - start))


def _merged_blocks(
    base: BinaryIO, tensor: TensorEntry, target: LoraTarget, effect: Effect
) -> Iterator[Block]:
    columns = tensor.shape[1]
    row_bytes = columns * ITEM_BYTES[tensor.dtype]
    effect.weights += tensor.shape[0] * columns
    with target.a.file.open("rb") as adapter:
        a = _rows(adapter, target.a, 0, target.a.shape[0])  # (r, columns)
        gram = a @ a.T
        for first, count in _row_blocks(*tensor.shape):
            b = _rows(adapter, target.b, first, count)  # (count, r)
            b *= target.scaling
            effect.delta_squared += squared_norm(b, gram)
            raw = np.frombuffer(
                _read(base, tensor.offset + first * row_bytes, count * row_bytes), np.uint8
            )
            with np.errstate(over="ignore", invalid="ignore"):  # judged by `narrow`
                rounded = _add(raw, b @ a, tensor, effect)
            yield rounded.data


def _row_blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each block."""
    step = max(LEAST_ROWS, BLOCK_WEIGHTS // max(columns, 1))
    for first in range(0, rows, step):
        yield first, min(step, rows - first)


def _add(raw: Raw, total: Float64, tensor: TensorEntry, effect: Effect) -> Raw:
    """The rounded bytes of weights + update; `total` holds the update and is used up."""
    weights = widen(raw, tensor.dtype, total.shape)
    effect.weights_squared += sum_of_squares(weights)
    total += weights
    try:
        rounded = narrow(total, tensor.dtype)
    except NotFinite:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{tensor.name} is not finite in {tensor.dtype} once the adapter is added: the adapter "
            "or the base holds NaN, infinity or too large values; name ones that do not",
        ) from None
    effect.unchanged += count_equal(rounded, raw, tensor.dtype)
    return rounded


def _rows(file: BinaryIO, matrix: TensorEntry, first: int, count: int) -> Float64:
    """Rows of a matrix of the adapter."""
    columns = matrix.shape[1]
    row_bytes = columns * ITEM_BYTES[matrix.dtype]
    data = _read(file, matrix.offset + first * row_bytes, count * row_bytes)
    raw = np.frombuffer(data, np.uint8)
    return widen(raw, matrix.dtype, (count, columns)).astype(np.float64)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise Refused(Reason.INVALID_INPUT, f"{file.name} became shorter; upload it again")
    return data
