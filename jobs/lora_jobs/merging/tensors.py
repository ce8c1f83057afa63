"""bf16, fp16 and fp32 as numpy sees them, and the one rounding of the merge.

numpy has no bf16: it is the upper half of a float32, so widening is a shift and exact; narrowing
rounds to nearest, ties to even, as hardware does.
"""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


class NotFinite(ValueError):
    """A value is NaN or infinite, or does not fit into the output's dtype."""


def widen(raw: Raw, dtype: str, shape: tuple[int, ...]) -> Float32:
    """The bytes of a tensor as float32, exactly. The result is new memory."""
    match dtype:
        case "BF16":
            bits = raw.view(np.uint16).astype(np.uint32) << np.uint32(16)
            return bits.view(np.float32).reshape(shape)
        case "F16":
            return raw.view(np.float16).astype(np.float32).reshape(shape)
        case _:
            return raw.view(np.float32).reshape(shape).copy()


def narrow(values: Float32, dtype: str) -> Raw:
    """The bytes of float32 values in `dtype`, rounded once to nearest even.

    Raises:
        NotFinite: A value is not finite, or is beyond the largest that `dtype` holds.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if not np.isfinite(flat).all():
        raise NotFinite
    match dtype:
        case "BF16":
            bits = flat.view(np.uint32)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            rounded = ((bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)
            if ((rounded & np.uint16(0x7F80)) == np.uint16(0x7F80)).any():
                raise NotFinite
            return rounded.view(np.uint8)
        case "F16":
            with np.errstate(over="ignore"):
                half = flat.astype(np.float16)
            if not np.isfinite(half).all():
                raise NotFinite
            return half.view(np.uint8)
        case _:
            return flat.view(np.uint8)
