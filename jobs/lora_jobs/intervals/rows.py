"""Estimates as the decimal strings that travel in measurements. Pure."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from lora_api.estimates import (
    BLOCKS,
    DOCUMENTS,
    EFFECTIVE_DOCUMENTS,
    LOWER,
    UPPER,
    VALUE,
)
from lora_jobs.intervals.blocks import BlockRatio

STEP = Decimal("0.000001")


def over_documents(
    value: float,
    bounds: tuple[float, float] | None,
    documents: int,
    effective_documents: float,
) -> dict[str, str] | None:
    """The row of an estimate over documents; None when the value is not finite."""
    counts = {DOCUMENTS: str(documents), EFFECTIVE_DOCUMENTS: f"{effective_documents:.1f}"}
    return _row(value, bounds, counts)


def over_blocks(found: BlockRatio) -> dict[str, str] | None:
    """The row of an estimate over blocks; None when the value is not finite."""
    return _row(found.ratio, found.bounds, {BLOCKS: str(found.blocks)})


def _row(
    value: float, bounds: tuple[float, float] | None, counts: dict[str, str]
) -> dict[str, str] | None:
    if not math.isfinite(value):
        return None
    row = {VALUE: _decimal(value, ROUND_HALF_EVEN)}
    if bounds and all(map(math.isfinite, bounds)):
        # Away from the value, so that rounding never lets a limit be met.
        low, high = bounds
        row |= {LOWER: _decimal(low, ROUND_FLOOR), UPPER: _decimal(high, ROUND_CEILING)}
    return row | counts


def _decimal(number: float, rounding: str) -> str:
    exact = Decimal(number)
    return (
        f"{exact.quantize(STEP, rounding) if abs(number) < 1e15 else exact.to_integral_value():f}"
    )
