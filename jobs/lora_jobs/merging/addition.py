"""bf16 weights + update at the speed of float32, with the bytes that float64 gives.

`addition.c` multiplies the thin matrices, adds and rounds in float32, and sums again in float64
where float32 cannot tell which number is the nearest. A wheel that was built without a compiler
lacks it: all is then summed in float64, to the same bytes.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.ctypeslib import ndpointer

from lora_jobs.merging.tensors import Float32, Float64, Raw

LIBRARY = Path(__file__).with_name("_addition.so")
TILE = 256
"""Columns of the right factor that lie together, as `addition.c` takes them."""
_UNIT_ROUNDOFF = 2.0**-24
_LEAST_TOLERANCE = 2.0**-120
"""Above what products lose that are too small for a normal float32."""


@cache
def kernel() -> Callable[..., int] | None:
    """`add_rounded_bf16` of `addition.c`; None where it was not compiled."""
    try:
        function = ctypes.CDLL(str(LIBRARY)).add_rounded_bf16
    except (OSError, AttributeError):
        return None
    halves, singles, doubles = (
        ndpointer(kind, flags="C_CONTIGUOUS") for kind in (np.uint16, np.float32, np.float64)
    )
    size, squares = ctypes.c_size_t, ctypes.POINTER(ctypes.c_double)
    function.argtypes = [
        halves, singles, singles, singles, doubles, doubles, size, size, size, halves,
        squares, ctypes.POINTER(size),
    ]  # fmt: skip
    compiled: Callable[..., int] = function
    return compiled


class Sums(NamedTuple):
    """What the kernel says of some rows."""

    weights_squared: float
    unchanged: int
    """How many weights rounding left as they were."""


class Addition:
    """Adds rows of left @ right.

    Args:
        right: (r, columns).
    """

    def __init__(self, right: Float64) -> None:
        rank, self._columns = right.shape
        tiles = -(-self._columns // TILE)
        filled = np.zeros((tiles * TILE, rank))
        filled[: self._columns] = right.T
        self._right = filled
        by_tile = filled.reshape(tiles, TILE, rank).transpose(0, 2, 1)
        self._tiles = by_tile.astype(np.float32, order="C")
        # Cauchy-Schwarz bounds what a dot product sums by the norms of row and column; its error in
        # any order is r roundings of that (Higham 2002, section 3.1), and one more of `left`.
        widest = float(np.sqrt(np.einsum("ij,ij->j", right, right).max(initial=0.0)))
        self._error_of_norm = 1.01 * (rank + 2) * _UNIT_ROUNDOFF * widest

    def add(self, raw: Raw, left: Float64, rounded: Raw) -> Sums | None:
        """The sums of some rows, rounded.

        Args:
            raw: The bytes of bf16 weights, rows * columns of them.
            left: (rows, r).
            rounded: Takes the bytes of the sums.

        Returns:
            None where there is no kernel, or where a sum is not finite.
        """
        function = kernel()
        if function is None:
            return None
        rows, rank = left.shape
        squares, unchanged = ctypes.c_double(), ctypes.c_size_t()
        failed = function(
            raw.view(np.uint16), left.astype(np.float32, order="C"), self._tiles,
            self._tolerances(left), np.ascontiguousarray(left), self._right,
            rows, rank, self._columns, rounded.view(np.uint16),
            ctypes.byref(squares), ctypes.byref(unchanged),
        )  # fmt: skip
        return None if failed else Sums(squares.value, unchanged.value)

    def _tolerances(self, left: Float64) -> Float32:
        """How far float32 may be off, of each row; 0 where nothing is added."""
        norms = np.sqrt(np.einsum("ij,ij->i", left, left))
        errors = norms * self._error_of_norm
        return np.where(errors > 0, np.maximum(errors, _LEAST_TOLERANCE), 0.0).astype(np.float32)
