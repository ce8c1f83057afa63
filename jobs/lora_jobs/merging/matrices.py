"""Parts of a stored matrix, read as numbers.

Files are read with plain reads: a mapped file would count as memory, page by page.
"""

from io import BufferedReader

import numpy as np

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.tensors import ITEM_BYTES, Float64, Raw, widen
from lora_jobs.weightfiles import TensorEntry


def read_into(file: BufferedReader, offset: int, memory: Raw) -> None:
    """Fill `memory` with the bytes from `offset` on.

    Raises:
        Refused: The file ends before.
    """
    file.seek(offset)
    if file.readinto(memory.data) != len(memory):
        raise Refused(Reason.INVALID_INPUT, f"{file.name} became shorter; upload it again")


def read_exactly(file: BufferedReader, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on.

    Raises:
        Refused: The file ends before.
    """
    memory = np.empty(size, np.uint8)
    read_into(file, offset, memory)
    return memory.tobytes()


def read_rows(file: BufferedReader, matrix: TensorEntry, first: int, count: int) -> Float64:
    """Rows of a matrix, (count, columns); of a vector its values, as (count, 1)."""
    columns = matrix.shape[1] if len(matrix.shape) == 2 else 1
    row_bytes = columns * ITEM_BYTES[matrix.dtype]
    data = read_exactly(file, matrix.offset + first * row_bytes, count * row_bytes)
    raw = np.frombuffer(data, np.uint8)
    return widen(raw, matrix.dtype, (count, columns)).astype(np.float64)


def read_columns(file: BufferedReader, matrix: TensorEntry, first: int, count: int) -> Float64:
    """Columns of a matrix, transposed: (count, rows)."""
    rows, columns = matrix.shape
    item = ITEM_BYTES[matrix.dtype]
    pieces = (
        read_exactly(file, matrix.offset + (row * columns + first) * item, count * item)
        for row in range(rows)
    )
    raw = np.frombuffer(b"".join(pieces), np.uint8)
    return widen(raw, matrix.dtype, (rows, count)).astype(np.float64).T
