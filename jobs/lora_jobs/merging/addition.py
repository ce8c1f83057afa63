"""bf16 weights + update at the speed of float32, with the bytes that float64 gives.

The product of the thin matrices is float32's; `addition.c` adds, rounds, and sums again in float64
where float32 cannot tell which number is the nearest. A wheel that was built without a compiler
lacks it: all is then summed in float64, to the same bytes.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.ctypeslib import ndpointer

from lora_jobs.merging.tensors import Float32, Float64, Raw

LIBRARY = Path(__file__).with_name("_addition.so")
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
        halves, singles, singles, doubles, doubles, size, size, size, halves, squares,
    ]  # fmt: skip
    compiled: Callable[..., int] = function
    return compiled


class Addition:
    """Adds rows of left @ right.

    Args:
        right: (r, columns).
    """

    def __init__(self, right: Float64) -> None:
        self._right = np.ascontiguousarray(right)
        self._single = right.astype(np.float32)
        self._product = np.empty((0, right.shape[1]), np.float32)
        # Cauchy-Schwarz bounds what a dot product sums by the norms of row and column; its error in
        # any order is r roundings of that (Higham 2002, section 3.1), and one more of `left`.
        widest = float(np.sqrt(np.einsum("ij,ij->j", right, right).max(initial=0.0)))
        self._error_of_norm = 1.01 * (len(right) + 2) * _UNIT_ROUNDOFF * widest

    def add(self, raw: Raw, left: Float64) -> tuple[Raw, float] | None:
        """The rounded sums of some rows, and the sum of the weights' squares.

        Args:
            raw: The bytes of bf16 weights, rows * columns of them.
            left: (rows, r).

        Returns:
            None where there is no kernel, or where a sum is not finite.
        """
        function = kernel()
        if function is None:
            return None
        rows, (rank, columns) = len(left), self._right.shape
        sums = np.empty(rows * columns, np.uint16)
        squares = ctypes.c_double()
        failed = function(
            raw.view(np.uint16), self._update(left), self._tolerances(left),
            np.ascontiguousarray(left), self._right,
            rows, rank, columns, sums, ctypes.byref(squares),
        )  # fmt: skip
        return None if failed else (sums.view(np.uint8), squares.value)

    def _update(self, left: Float64) -> Float32:
        """The product, in memory that is used again: fresh pages cost more than the arithmetic."""
        if len(self._product) < len(left):
            self._product = np.empty((len(left), self._right.shape[1]), np.float32)
        return np.matmul(left.astype(np.float32), self._single, out=self._product[: len(left)])

    def _tolerances(self, left: Float64) -> Float32:
        """How far float32 may be off, of each row; 0 where nothing is added."""
        norms = np.sqrt(np.einsum("ij,ij->i", left, left))
        errors = norms * self._error_of_norm
        return np.where(errors > 0, np.maximum(errors, _LEAST_TOLERANCE), 0.0).astype(np.float32)
