"""What a 16-bit weight becomes in NF4 with double quantization: the base of QLoRA. Pure.

Codes and both levels of scales follow QLoRA (Dettmers et al. 2023, section 3 and appendix E) and
bitsandbytes, with which adapters are trained: blocks of 64 consecutive weights of a row, scaled by
their largest magnitude; these scales, less their mean over the tensor, in 8 bits by blocks of 256;
the dequantized weight rounded to the base's dtype.
"""

import numpy as np

from lora_jobs.merging.tensors import Float32

BLOCK = 64
"""Weights that share one scale."""
SCALES_BLOCK = 256
"""Scales that share one scale of theirs."""

CODES = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
"""The 16 values of NF4: quantiles of a normal distribution, with an exact zero."""


def largest_magnitudes(weights: Float32) -> Float32:
    """Of each block of rows, (rows * columns / 64,).

    Args:
        weights: (rows, columns), columns a multiple of 64.
    """
    found: Float32 = np.abs(weights.reshape(-1, BLOCK)).max(axis=1)
    return found


def stored_scales(magnitudes: Float32) -> Float32:
    """What is left of a tensor's scales after their own quantization, (blocks,).

    Args:
        magnitudes: Of all blocks of the tensor, in their order.
    """
    offset = magnitudes.mean(dtype=np.float32)
    padded = np.zeros(-(-len(magnitudes) // SCALES_BLOCK) * SCALES_BLOCK, np.float32)
    padded[: len(magnitudes)] = magnitudes - offset
    blocks = padded.reshape(-1, SCALES_BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    kept = _nearest(_scaled(blocks, largest), _SCALE_CODES) * largest
    scales: Float32 = kept.reshape(-1)[: len(magnitudes)] + offset
    return scales


def through_nf4(weights: Float32, scales: Float32) -> Float32:
    """Weights quantized by their blocks' magnitudes and dequantized by the stored scales.

    Args:
        weights: (rows, columns).
        scales: Of their blocks, from `stored_scales`.
    """
    blocks = weights.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    wide: Float32 = _nearest(_scaled(blocks, largest), CODES) * scales[:, np.newaxis]
    return wide.reshape(weights.shape)


def _scaled(blocks: Float32, largest: Float32) -> Float32:
    """Blocks over their largest magnitudes; zeros stay zeros."""
    scaled: Float32 = blocks / np.where(largest == 0, np.float32(1), largest)
    return scaled


def _nearest(values: Float32, codes: Float32) -> Float32:
    """The nearest code of each value."""
    found: Float32 = codes[np.searchsorted((codes[1:] + codes[:-1]) / 2, values)]
    return found


def _scale_codes() -> Float32:
    """The 8-bit float of the scales: 7 decades, each with twice as many steps as the one below.

    Dettmers, "8-Bit Approximations for Parallelism in Deep Learning" (2015), the dynamic tree.
    """
    codes = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2**decade + 1, dtype=np.float32)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        codes += [*middles, *-middles]
    return np.sort(np.array(codes, np.float32))


_SCALE_CODES = _scale_codes()
