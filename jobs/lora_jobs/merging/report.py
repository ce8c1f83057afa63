"""What a merge did, as people and the next stage want to know it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lora_jobs.store.interface import FileHash

NO_EFFECT = "none: every delta is zero, the merged model is the base"


@dataclass
class Effect:
    """Running totals over the tensors that change.

    Attributes:
        weights_squared: Sum of the squares of the base's weights.
        delta_squared: Sum of the squares of the updates.
        unchanged: Weights that rounding left as they were.
        weights: How many there are.
    """

    weights_squared: float = 0.0
    delta_squared: float = 0.0
    unchanged: int = 0
    weights: int = 0

    def add(self, other: "Effect") -> None:
        """Count what another one has counted."""
        self.weights_squared += other.weights_squared
        self.delta_squared += other.delta_squared
        self.unchanged += other.unchanged
        self.weights += other.weights


@dataclass(frozen=True)
class MergeReport:
    """What the merge did.

    Attributes:
        files: What is known of every file of the output, by path.
        merged: Tensors that were changed.
        copied: Tensors that were taken as they are.
        delta_to_weights: RMS of the update relative to the RMS of the weights it changed.
        unchanged_fraction: Of the weights of changed tensors, those that rounding left alone.
        notes: Short facts for people.
    """

    files: Mapping[str, FileHash]
    merged: int
    copied: int
    delta_to_weights: float
    unchanged_fraction: float
    notes: Mapping[str, str]

    @property
    def message(self) -> str:
        """One line for status."""
        return (
            f"{self.merged} tensors merged, delta is {percent(self.delta_to_weights)} of the "
            f"weights, rounding leaves {percent(self.unchanged_fraction)} of them unchanged"
        )


def delta_to_weights(effect: Effect) -> float:
    """RMS of the updates over RMS of the weights; 0 where there is nothing to compare with."""
    if not effect.weights_squared:
        return 0.0
    return math.sqrt(effect.delta_squared / effect.weights_squared)


def unchanged_fraction(effect: Effect) -> float:
    """0 to 1."""
    return effect.unchanged / max(effect.weights, 1)


def percent(fraction: float) -> str:
    """With two digits that say something, e.g. 1.6 %, 0.16 %, 0.00021 %."""
    return f"{fraction * 100:.2g} %" if fraction < 0.1 else f"{fraction * 100:.1f} %"
