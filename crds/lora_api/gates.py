"""Judging measurements against gates. Pure; a missing or unlike number never passes.

Measurements are decimal strings by metric and condition:

    {"Perplexity/task": {"base": "31.2", "merged": "18.4", "quantized": "18.9"}, ...}

Conditions: base (the base model), dynamic (base with the adapter unmerged), merged, quantized.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from lora_api.base import ApiModel
from lora_api.digests import digest_of
from lora_api.gatespec import GateMode, Gates

Measurements = dict[str, dict[str, str]]

BASE, DYNAMIC, MERGED, QUANTIZED = "base", "dynamic", "merged", "quantized"
CONDITIONS = (BASE, DYNAMIC, MERGED, QUANTIZED)

TASK_PERPLEXITY = "Perplexity/task"
GENERAL_PERPLEXITY = "Perplexity/general"
TASK_NLL = "NegativeLogLikelihood/task"
GENERAL_NLL = "NegativeLogLikelihood/general"
WEIGHTS_BYTES = "WeightsBytes"
PEAK_MEMORY_BYTES = "PeakMemoryBytes"


def at_concurrency(metric: str, concurrency: int) -> str:
    """The key of a timing metric, e.g. `TimeToFirstToken/p50@1`."""
    return f"{metric}@{concurrency}"


TTFT_P50 = "TimeToFirstToken/p50"
TPOT_P50 = "TimePerOutputToken/p50"
OUTPUT_TOKENS_PER_SECOND = "OutputTokensPerSecond"


class Verdict(StrEnum):
    """What a gate, or all of them together, say. Only Passed rolls out."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
    NOT_APPLICABLE = "NotApplicable"


SEVERITY = (
    Verdict.NOT_APPLICABLE,
    Verdict.PASSED,
    Verdict.INCONCLUSIVE,
    Verdict.FAILED,
    Verdict.ERROR,
)


class GateResult(ApiModel):
    """One judged gate, in the words of status and report."""

    name: str
    observed: str = ""
    limit: str
    mode: GateMode
    verdict: Verdict
    message: str = ""
    recipe_can_help: bool = True
    """False when another quantization recipe cannot change the verdict."""


class Judgement(ApiModel):
    """All gates and the worst enforced verdict."""

    verdict: Verdict
    gates: list[GateResult]

    @property
    def failed(self) -> list[GateResult]:
        """Enforced gates that did not pass."""
        return [
            g
            for g in self.gates
            if g.mode is GateMode.ENFORCE
            and g.verdict not in (Verdict.PASSED, Verdict.NOT_APPLICABLE)
        ]

    @property
    def summary(self) -> str:
        """`passed/judged` over the enforced gates that apply."""
        judged = [
            g
            for g in self.gates
            if g.mode is GateMode.ENFORCE and g.verdict is not Verdict.NOT_APPLICABLE
        ]
        return f"{sum(g.verdict is Verdict.PASSED for g in judged)}/{len(judged)}"


class _Observation(NamedTuple):
    """What a gate looks at: a fraction, and whether it is within the limit."""

    fraction: Fraction
    passes: bool
    message: str = ""
    recipe_can_help: bool = True


class _Gate(NamedTuple):
    name: str
    limit: str
    mode: GateMode
    observe: Callable[[], _Observation]
    inapplicable: str = ""


class MissingMeasurement(Exception):
    """A number that a gate needs is absent, not finite or not positive."""


def number(measurements: Mapping[str, Mapping[str, str]], metric: str, condition: str) -> Fraction:
    """One finite, positive measurement, exact: a number at its limit must not fail by rounding.

    Raises:
        MissingMeasurement: It is absent, unreadable, NaN, infinite, zero or negative.
    """
    text = measurements.get(metric, {}).get(condition)
    if text is None:
        raise MissingMeasurement(f"{metric} of {condition} was not measured")
    try:
        # As a float first: the exact fraction of 1e999999999 would fill the memory.
        value = float(text)
        if math.isfinite(value) and value > 0:
            return Fraction(Decimal(text))
    except (ValueError, InvalidOperation):
        raise MissingMeasurement(f"{metric} of {condition} is not a number: {text!r}") from None
    raise MissingMeasurement(f"{metric} of {condition} is {text}")


def percent(text: str) -> Fraction:
    """`5%` as the fraction 1/20."""
    return Fraction(Decimal(text.removesuffix("%"))) / 100


def signed_percent(fraction: Fraction) -> str:
    """A fraction as people read it: `+1.1%`."""
    return f"{float(fraction) * 100:+.1f}%"


def _change(measurements: Measurements, metric: str, against: str) -> Fraction:
    return number(measurements, metric, QUANTIZED) / number(measurements, metric, against) - 1


def _rises_by_at_most(m: Measurements, metric: str, against: str, limit: str) -> _Observation:
    change = _change(m, metric, against)
    return _Observation(change, change <= percent(limit))


def _falls_by_at_most(m: Measurements, metric: str, against: str, limit: str) -> _Observation:
    change = _change(m, metric, against)
    return _Observation(change, -change <= percent(limit))


def _falls_by_at_least(m: Measurements, metric: str, against: str, limit: str) -> _Observation:
    change = _change(m, metric, against)
    return _Observation(change, -change >= percent(limit))


def _gain_retained(m: Measurements, limit: str) -> _Observation:
    base, merged = number(m, TASK_NLL, BASE), number(m, TASK_NLL, MERGED)
    quantized = number(m, TASK_NLL, QUANTIZED)
    gain = base - merged
    if gain <= 0:
        return _Observation(
            Fraction(0),
            passes=False,
            message="the adapter does not help on the task set: merged is not better than base; "
            "is it the right adapter, and is the set from its task?",
            recipe_can_help=False,
        )
    retained = (base - quantized) / gain
    return _Observation(retained, retained >= percent(limit))


def _quality_gates(gates: Gates, m: Measurements) -> list[_Gate]:
    g = gates
    no_general = "" if GENERAL_PERPLEXITY in m else "no general evaluation set is given"
    return [
        _Gate("taskQuality", f"<= +{g.task_quality.max_increase}", g.task_quality.mode,
              lambda: _rises_by_at_most(m, TASK_PERPLEXITY, MERGED, g.task_quality.max_increase)),
        _Gate("gainRetained", f">= {g.gain_retained.min}", g.gain_retained.mode,
              lambda: _gain_retained(m, g.gain_retained.min)),
        _Gate("generalQuality", f"<= +{g.general_quality.max_increase}", g.general_quality.mode,
              lambda: _rises_by_at_most(
                  m, GENERAL_PERPLEXITY, MERGED, g.general_quality.max_increase),
              no_general),
        _Gate("weightsSize", f"<= -{g.weights_size.min_decrease}", g.weights_size.mode,
              lambda: _falls_by_at_least(m, WEIGHTS_BYTES, BASE, g.weights_size.min_decrease)),
    ]  # fmt: skip


def _speed_gates(gates: Gates, m: Measurements) -> list[_Gate]:
    speed, first = gates.decode_speed, gates.first_token
    return [
        _Gate("decodeSpeed", f">= -{speed.max_decrease}", speed.mode,
              lambda: _falls_by_at_most(
                  m, at_concurrency(OUTPUT_TOKENS_PER_SECOND, 1), BASE, speed.max_decrease)),
        _Gate("firstToken", f"<= +{first.max_increase}", first.mode,
              lambda: _rises_by_at_most(m, at_concurrency(TTFT_P50, 1), BASE, first.max_increase)),
    ]  # fmt: skip


def _judge_one(gate: _Gate) -> GateResult:
    result = GateResult(name=gate.name, limit=gate.limit, mode=gate.mode, verdict=Verdict.ERROR)
    if gate.inapplicable:
        return result.model_copy(
            update={"verdict": Verdict.NOT_APPLICABLE, "message": gate.inapplicable}
        )
    try:
        seen = gate.observe()
    except MissingMeasurement as missing:
        return result.model_copy(update={"message": str(missing)})
    observed = signed_percent(seen.fraction)
    return result.model_copy(
        update={
            "observed": observed.lstrip("+") if gate.name == "gainRetained" else observed,
            "verdict": Verdict.PASSED if seen.passes else Verdict.FAILED,
            "message": seen.message,
            "recipe_can_help": seen.recipe_can_help,
        }
    )


def _overall(results: Iterable[GateResult]) -> Verdict:
    enforced = [r.verdict for r in results if r.mode is GateMode.ENFORCE]
    worst = max(enforced, key=SEVERITY.index, default=Verdict.NOT_APPLICABLE)
    # Nothing ungated serves: when no enforced gate applies, nobody has vouched for the model.
    return Verdict.ERROR if worst is Verdict.NOT_APPLICABLE else worst


def _judge(gates: list[_Gate]) -> Judgement:
    results = [_judge_one(g) for g in gates if g.mode is not GateMode.DISABLED]
    return Judgement(verdict=_overall(results), gates=results)


def judge_quality(gates: Gates, measurements: Measurements) -> Judgement:
    """Judge what `evaluate` measured: quality and weight bytes."""
    return _judge(_quality_gates(gates, measurements))


def judge(gates: Gates, measurements: Measurements) -> Judgement:
    """Judge all gates over the rows of `evaluate` and `benchmark` together."""
    return _judge(_quality_gates(gates, measurements) + _speed_gates(gates, measurements))


def gates_hash(gates: Gates) -> str:
    """Identity of a judgement's rules, for the store's paths."""
    return digest_of(gates.to_json()).removeprefix("sha256:")[:16]
