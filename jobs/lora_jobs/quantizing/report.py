"""What happened to each module, read from GPTQModel's log. Pure.

GPTQModel logs a module that it rounded to nearest instead (too few tokens reached it, or its
Hessian failed) by writing "fallback" where the loss stands, and raises the damping in silence.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

from lora_api.gates import Measurements, modules_row

OUTLIER_FACTOR = 10
"""A loss this many times the median of its module over all layers is told by name."""
UNSCALED = "not applicable"
"""What GPTQModel writes as AWQ's loss of a module that no scale was searched for."""


@dataclass(frozen=True)
class ModuleOutcome:
    """One quantized module.

    Attributes:
        layer: Number of the decoder layer.
        module: Its name within the layer.
        loss: GPTQ's mean squared error per sample, weighted by the Hessian; AWQ's error of the
            layers that share a scale. None for a fallback, and where AWQ looked for no scale.
        samples: Tokens that reached it.
        damping: What was added to the Hessian's diagonal, as a fraction of its mean; GPTQ alone.
        is_unscaled: AWQ looked for no scale, since none can be moved into the layer before: rounded
            as it was.
    """

    layer: int
    module: str
    loss: str | None
    samples: int
    damping: str
    is_unscaled: bool = False

    @property
    def name(self) -> str:
        """As people find it in the model."""
        return f"layers.{self.layer}.{self.module}"

    @property
    def short_loss(self) -> str:
        """Two digits are enough for people."""
        return f"{float(self.loss or 0):.2g}"

    def row(self) -> tuple[str, ...]:
        """The line of the log that travels with the artifact; no times."""
        without = "not applicable" if self.is_unscaled else "fallback(rtn)"
        loss = without if self.loss is None else self.loss
        return (str(self.layer), self.module, loss, str(self.samples), self.damping)


@dataclass(frozen=True)
class QuantizeReport:
    """How a model was quantized."""

    bits: int
    group_size: int
    damping: str
    modules: tuple[ModuleOutcome, ...]
    bits_per_weight: float
    """All bytes of the quantized modules (codes, scales, zero points, indices) by their weights."""
    calibration_tokens: int
    device: str
    seconds: float
    tools: dict[str, str]
    no_checkpoints: str = ""
    """Why a run like this cannot be continued after a kill, although that was asked for."""

    @property
    def worst(self) -> ModuleOutcome | None:
        """The module with the highest loss."""
        return worst_of(self.modules)

    @property
    def fallbacks(self) -> tuple[ModuleOutcome, ...]:
        """Modules that were rounded to nearest, without calibration."""
        return tuple(m for m in self.modules if m.loss is None and not m.is_unscaled)

    @property
    def damping_raised(self) -> tuple[ModuleOutcome, ...]:
        """Modules whose Hessian needed more damping than was asked for."""
        return tuple(
            m
            for m in self.modules
            if m.loss is not None and m.damping and Decimal(m.damping) > Decimal(self.damping)
        )

    @property
    def loss_outliers(self) -> tuple[ModuleOutcome, ...]:
        """Modules whose loss lies far above what the same module of other layers has."""
        losses: dict[str, list[Decimal]] = {}
        for m in self.modules:
            losses.setdefault(m.module, []).extend([Decimal(m.loss)] if m.loss else [])
        typical = {module: median(found) for module, found in losses.items() if found}
        return tuple(
            m
            for m in self.modules
            if m.loss and Decimal(m.loss) > OUTLIER_FACTOR * typical[m.module]
        )

    def measurements(self) -> Measurements:
        """What gates look at; nothing for AWQ, whose log does not tell a fallback."""
        if not self.damping:
            return {}
        return modules_row(len(self.modules), len(self.fallbacks), len(self.damping_raised))

    def notes(self) -> dict[str, str]:
        """Short facts for status and report."""
        worst = self.worst
        unscaled = tuple(m for m in self.modules if m.is_unscaled)
        of_method = (
            {"dampingRaised": _named(self.damping_raised)}
            if self.damping
            else {"unscaled": _named(unscaled)}
        )
        unkept = {"noCheckpoints": self.no_checkpoints} if self.no_checkpoints else {}
        return unkept | {
            "worstLoss": f"{worst.short_loss} at {worst.name}" if worst else "none",
            "lossOutliers": _named(self.loss_outliers),
            "fallbacks": _named(self.fallbacks),
            **of_method,
            "bitsPerWeight": f"{self.bits_per_weight:.2f}",
            "calibrationTokens": str(self.calibration_tokens),
            "device": self.device,
            "tools": ", ".join(f"{name} {version}" for name, version in self.tools.items()),
        }

    def message(self) -> str:
        """One line for people."""
        notes = self.notes()
        line = (
            f"{len(self.modules)} modules at {self.bits} bits, group {self.group_size} "
            f"({notes['bitsPerWeight']} bits per weight): worst loss {notes['worstLoss']}"
        )
        if self.fallbacks:
            line += f"; rounded to nearest without calibration: {notes['fallbacks']}"
        if self.damping_raised:
            line += f"; damping raised: {notes['dampingRaised']}"
        return line


def outcomes(log: Iterable[Mapping[str, Any]]) -> tuple[ModuleOutcome, ...]:
    """GPTQModel's log in the order of the model; worker threads finish in any."""
    found = [
        ModuleOutcome(
            layer=int(entry["layer"]),
            module=str(entry["module"]),
            loss=_loss(str(entry["loss"])),
            samples=int(entry["samples"]),
            damping=str(entry.get("damp", "")),
            is_unscaled=str(entry["loss"]) == UNSCALED and int(entry["samples"]) > 0,
        )
        for entry in log
    ]
    return tuple(sorted(found, key=lambda m: (m.layer, m.module)))


def worst_of(modules: Iterable[ModuleOutcome]) -> ModuleOutcome | None:
    """The module with the highest loss; fallbacks have none."""
    return max(
        (m for m in modules if m.loss is not None),
        key=lambda m: Decimal(m.loss or 0),
        default=None,
    )


def _loss(text: str) -> str | None:
    try:
        return text if math.isfinite(float(text)) else None
    except ValueError:
        return None


def _named(modules: tuple[ModuleOutcome, ...]) -> str:
    if not modules:
        return "0"
    shown = ", ".join(m.name for m in modules[:3])
    return f"{len(modules)} ({shown}{', ...' if len(modules) > 3 else ''})"
