"""Four-bit quantization as the papers state it, in numpy: to check others with, never to be used.

    RTN    round to nearest, symmetric, one scale a group
    GPTQ   Frantar et al. 2022, algorithm 1: columns in order, each one's error is spread over the
           later ones by the inverse Hessian of the layer's inputs

The v1 layout of AutoGPTQ: codes are packed eight to an int32 along the inputs, zero points along
the outputs and stored less one, scales as (group, out), `g_idx` is the group of each input.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
BITS, LEVELS, ZERO, PER_WORD = 4, 16, 8, 8
_SHIFTS = np.arange(PER_WORD, dtype=np.uint32) * BITS


class Codes(NamedTuple):
    """A quantized layer before it is packed."""

    codes: npt.NDArray[np.int64]
    """(in, out), 0 to 15."""
    zeros: npt.NDArray[np.int64]
    """(groups, out), 1 to 16."""
    scales: Matrix
    """(groups, out)."""
    groups: npt.NDArray[np.int64]
    """(in,), the group of each input."""

    def dequantized(self) -> Matrix:
        """(out, in)."""
        return (self.scales[self.groups] * (self.codes - self.zeros[self.groups])).T


def rtn(weight: Matrix, group_size: int) -> Codes:
    """Round a (out, in) weight to nearest."""
    return _quantized(weight, None, group_size)


def gptq(weight: Matrix, hessian: Matrix, group_size: int, damping: float = 0.05) -> Codes:
    """Quantize a (out, in) weight against its inputs' Hessian, (in, in)."""
    damped = hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    return _quantized(weight, upper, group_size)


def layer_error(weight: Matrix, dequantized: Matrix, hessian: Matrix) -> float:
    """Squared error of the layer's output, summed: tr((W - Q) H (W - Q)^T)."""
    difference = weight - dequantized
    return float(np.einsum("oi,ij,oj->", difference, hessian, difference))


def _quantized(weight: Matrix, upper: Matrix | None, group_size: int) -> Codes:
    left = weight.copy()
    outputs, inputs = weight.shape
    codes = np.zeros((inputs, outputs), np.int64)
    scales = np.zeros((inputs // group_size, outputs))
    for i in range(inputs):
        group = i // group_size
        if i % group_size == 0:
            peak = np.abs(left[:, i : i + group_size]).max(axis=1)
            scales[group] = np.where(peak > 0, 2 * peak / (LEVELS - 1), 1)
        codes[i] = np.clip(np.rint(left[:, i] / scales[group]) + ZERO, 0, LEVELS - 1)
        if upper is not None:
            error = (left[:, i] - scales[group] * (codes[i] - ZERO)) / upper[i, i]
            left[:, i + 1 :] -= np.outer(error, upper[i, i + 1 :])
    zeros = np.full(scales.shape, ZERO)
    return Codes(codes, zeros, scales, np.arange(inputs) // group_size)


def pack(layer: Codes) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(qweight, qzeros): (in / 8, out) and (groups, out / 8), as int32."""
    inputs, outputs = layer.codes.shape
    rows = layer.codes.astype(np.uint32).reshape(inputs // PER_WORD, PER_WORD, outputs)
    stored = (layer.zeros - 1).astype(np.uint32).reshape(-1, outputs // PER_WORD, PER_WORD)
    qweight = np.bitwise_or.reduce(rows << _SHIFTS[None, :, None], axis=1)
    qzeros = np.bitwise_or.reduce(stored << _SHIFTS, axis=2)
    return qweight.view(np.int32), qzeros.view(np.int32)


def unpack(
    qweight: npt.NDArray[np.int32],
    qzeros: npt.NDArray[np.int32],
    scales: Matrix,
    g_idx: npt.NDArray[np.int64],
) -> Codes:
    """What the v1 layout holds."""
    mask = np.uint32(LEVELS - 1)
    words, outputs = qweight.shape
    codes = (qweight.view(np.uint32)[:, None, :] >> _SHIFTS[None, :, None]) & mask
    zeros = (qzeros.view(np.uint32)[:, :, None] >> _SHIFTS) & mask
    return Codes(
        codes.reshape(words * PER_WORD, outputs).astype(np.int64),
        zeros.reshape(len(qzeros), outputs).astype(np.int64) + 1,
        scales,
        g_idx,
    )
