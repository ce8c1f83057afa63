"""bf16, fp16 and fp32 as numpy sees them, and the one rounding of the merge. Pure.

numpy has no bf16: it is the upper half of a float32, so widening is a shift and exact; narrowing
rounds to nearest, ties to even, as hardware does.

The update is summed in float64 although float32 would be precise enough: float32 sums of matrix
products differ with the kernels that BLAS picks for the CPU at hand, so that the merged model would
have another digest on another kind of node. In float64 those differences lie some 2^-29 below what
is kept, and the bytes are the same everywhere.
"""

import math

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Raw = npt.NDArray[np.uint8]

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
"""Bytes of a value in each dtype that can be merged."""


class NotFinite(ValueError):
    """A value is NaN or infinite, or does not fit into the output's dtype."""


def widen(raw: Raw, dtype: str, shape: tuple[int, ...]) -> Float32:
    """The bytes of a tensor as float32, exactly. May share the memory of `raw`."""
    match dtype:
        case "BF16":
            bits = np.left_shift(raw.view(np.uint16), np.uint32(16), dtype=np.uint32)
            return bits.view(np.float32).reshape(shape)
        case "F16":
            return raw.view(np.float16).astype(np.float32).reshape(shape)
        case "F32":
            return raw.view(np.float32).reshape(shape)
    raise ValueError(f"{dtype} cannot be widened")


def narrow(values: Float64 | Float32, dtype: str) -> Raw:
    """The bytes of `values` in `dtype`, rounded to nearest even.

    To bf16 it goes through float32, which decides otherwise than one rounding for one value in
    about 2^17: a sum that float32 rounds onto the middle between two bf16 numbers.

    Raises:
        NotFinite: A value is not finite, or is beyond the largest that `dtype` holds.
    """
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "F16":
            half = flat.astype(np.float16)
            if not np.isfinite(half).all():
                raise NotFinite
            return half.view(np.uint8)
        single = flat.astype(np.float32)
    # A finite sum of squares bounds every value by 2^64, far from the largest bf16: one fast pass.
    is_tame = math.isfinite(sum_of_squares(single))
    if not is_tame and not np.isfinite(single).all():
        raise NotFinite
    if dtype == "F32":
        return single.view(np.uint8)
    half_bits = _upper_half(single)
    if not is_tame and ((half_bits & np.uint16(0x7F80)) == np.uint16(0x7F80)).any():
        raise NotFinite
    return half_bits.view(np.uint8)


def sum_of_squares(values: Float32) -> float:
    """The sum of x^2 in float32; inf where that is beyond its range."""
    return float(np.vdot(values, values))


def squared_norm(b: Float64, gram: Float64) -> float:
    """||B @ A||^2 (Frobenius) without the product: the trace of B^T B A A^T.

    Args:
        b: (rows, r).
        gram: A @ A.T, (r, r).
    """
    return float(np.vdot(b.T @ b, gram))


def count_equal(one: Raw, other: Raw, dtype: str) -> int:
    """How many values have the same bits."""
    word = np.dtype(f"u{ITEM_BYTES[dtype]}")
    return int(np.count_nonzero(one.view(word) == other.view(word)))


def _upper_half(values: Float32) -> npt.NDArray[np.uint16]:
    """float32 to bf16 bits: add just under half a unit, and the last bit kept, then cut."""
    bits = values.view(np.uint32)
    carry = bits >> np.uint32(16)
    carry &= np.uint32(1)
    carry += np.uint32(0x7FFF)
    carry += bits
    carry >>= np.uint32(16)
    return carry.astype(np.uint16)
