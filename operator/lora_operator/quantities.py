"""Quantities as Kubernetes writes them: `1000m`, `2Gi`."""

from decimal import Decimal, InvalidOperation
from typing import Any

_SUFFIXES = {"m": Decimal("0.001"), "": Decimal(1)} | {
    prefix + binary: Decimal((1024 if binary else 1000) ** power)
    for power, prefix in enumerate(("k", "M", "G", "T", "P"), start=1)
    for binary in ("", "i")
}
_SUFFIXES["Ki"] = Decimal(1024)


def quantity_of(value: Any) -> Decimal | None:
    """The number that a quantity stands for; None for what is none."""
    text = str(value)
    digits = text.rstrip("kmMGTPi")
    try:
        return Decimal(digits) * _SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None
