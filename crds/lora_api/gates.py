"""Judging measurements against gates. Pure; a missing or unlike number never passes.

A gate passes when the whole 95 % interval of what it looks at keeps the limit (2.5 % one-sided),
fails when the whole breaks it, and is Inconclusive else. Every enforced gate must pass, so no
correction for their number is needed: a bad model passes all only if it passes the gate that it
should fail.

Measurements are decimal strings by metric and condition:

    {"Perplexity/task": {"base": "31.2", "merged": "18.4", "quantized": "18.9"}, ...}

What `quantize` tells of its modules stands in the row `QuantizedModules`: how many there are, how
many of them are fallbacks, and how many needed more damping.

Conditions: base (the base model), dynamic (base with the adapter unmerged), merged, quantized.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from lora_api.base import ApiModel
from lora_api.digests import digest_of
from lora_api.estimates import (
    GAIN_RETAINED,
    PASS_RATE,
    Estimate,
    Part,
    comparison,
    estimate,
    exactly,
    finite,
    measured,
)
from lora_api.estimates import MissingMeasurement as MissingMeasurement
from lora_api.gatespec import (
    QUALITY_METRICS,
    TIMING_METRICS,
    CustomGate,
    GateMetric,
    GateMode,
    Gates,
    Override,
    SetName,
)
from lora_api.limits import SEVERITY, Observation, at_least, at_most, too_little_in
from lora_api.limits import Verdict as Verdict

Measurements = dict[str, dict[str, str]]

BASE, DYNAMIC, MERGED, QUANTIZED = "base", "dynamic", "merged", "quantized"
CONDITIONS = (BASE, DYNAMIC, MERGED, QUANTIZED)

TASK_PERPLEXITY = "Perplexity/task"
GENERAL_PERPLEXITY = "Perplexity/general"
TASK_NLL = "NegativeLogLikelihood/task"
GENERAL_NLL = "NegativeLogLikelihood/general"
WEIGHTS_BYTES = "WeightsBytes"
PEAK_MEMORY_BYTES = "PeakMemoryBytes"
QUANTIZED_MODULES = "QuantizedModules"
FALLBACKS, DAMPING_RAISED = "fallbacks", "dampingRaised"
"""Keys in the row of `QUANTIZED_MODULES`, beside the number of all under `QUANTIZED`."""


def at_concurrency(metric: str, concurrency: int) -> str:
    """The key of a timing metric, e.g. `TimeToFirstToken/p50@1`."""
    return f"{metric}@{concurrency}"


TTFT_P50 = "TimeToFirstToken/p50"
TPOT_P50 = "TimePerOutputToken/p50"
OUTPUT_TOKENS_PER_SECOND = "OutputTokensPerSecond"


class GateResult(ApiModel):
    """One judged gate, in the words of status and report."""

    name: str
    observed: str = ""
    interval: str = ""
    """95 %, e.g. `[+0.8%, +1.4%]`; empty for what is exact."""
    limit: str
    mode: GateMode
    verdict: Verdict
    message: str = ""
    recipe_can_help: bool = True
    """False when another quantization recipe cannot change the verdict."""
    accepted: str = ""
    """Why the verdict does not count for this artifact, by `spec.overrides`."""


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
            and not g.accepted
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


class _Gate(NamedTuple):
    name: str
    limit: str
    mode: GateMode
    observe: Callable[[], Observation]
    inapplicable: str = ""
    show: Callable[[Fraction], str] | None = None
    """How its numbers read; None: as changes."""


def number(measurements: Mapping[str, Mapping[str, str]], metric: str, condition: str) -> Fraction:
    """One finite, positive measurement, exact: a number at its limit must not fail by rounding.

    Raises:
        MissingMeasurement: It is absent, unreadable, NaN, infinite, zero or negative.
    """
    text = measurements.get(metric, {}).get(condition)
    if text is None:
        raise MissingMeasurement(f"{metric} of {condition} was not measured")
    try:
        value = finite(text)
    except ValueError:
        raise MissingMeasurement(f"{metric} of {condition} is not a number: {text!r}") from None
    if value > 0:
        return value
    raise MissingMeasurement(f"{metric} of {condition} is {text}")


def percent(text: str) -> Fraction:
    """`5%` as the fraction 1/20."""
    return Fraction(Decimal(text.removesuffix("%"))) / 100


def signed_percent(fraction: Fraction) -> str:
    """A fraction as people read it: `+1.1%`."""
    return f"{float(fraction) * 100:+.1f}%"


NOTHING_QUANTIZED = "method None: the merged model serves, and nothing was quantized"


NOT_COUNTED = "the quantize stage has not counted it: AWQ does not tell it, nor do older results"


def modules_row(modules: int, fallbacks: int, damping_raised: int) -> Measurements:
    """What `quantize` tells of its modules, for the gates on how they were solved."""
    counts = {QUANTIZED: modules, FALLBACKS: fallbacks, DAMPING_RAISED: damping_raised}
    return {QUANTIZED_MODULES: {key: str(count) for key, count in counts.items()}}


def _share_of_modules(m: Measurements, counted: str, limit: str, cure: str) -> Observation:
    modules = number(m, QUANTIZED_MODULES, QUANTIZED)
    try:
        count = finite(m[QUANTIZED_MODULES][counted])
    except (KeyError, ValueError):
        raise MissingMeasurement(f"{counted} of {QUANTIZED_MODULES} was not counted") from None
    if not 0 <= count <= modules:
        raise MissingMeasurement(f"{counted} cannot be {count} of {modules} modules")
    found = at_most(exactly(count / modules), percent(limit), Part.ALL)
    told = (
        f"{count} of {modules} modules, the first of them named in the message of quantize; {cure}"
    )
    return found._replace(message=told if count else "")


def _gain_retained(m: Measurements, limit: str, part: Part, served: str) -> Observation:
    gain = estimate(m, comparison(TASK_PERPLEXITY, BASE, MERGED, part))
    helps = at_least(gain, Fraction(1), part)
    if helps.verdict is Verdict.FAILED:
        return Observation(
            exactly(Fraction(0)),
            Verdict.FAILED,
            message="the adapter does not help on the task set: merged is not better than base; "
            "is it the right adapter, and is the set from its task?",
            recipe_can_help=False,
        )
    if too_little := too_little_in(gain, part):
        return Observation(None, Verdict.INCONCLUSIVE, too_little)
    if helps.verdict is Verdict.INCONCLUSIVE or gain.lower == 1:
        why = helps.message or "it is too small"
        raise MissingMeasurement(f"the gain of the adapter cannot be told from none: {why}")
    if served == MERGED:
        return Observation(
            exactly(Fraction(1)),
            Verdict.PASSED,
            "method None: the adapter helps, and the merged model has all of its gain",
        )
    retained = estimate(m, comparison(GAIN_RETAINED, QUANTIZED, MERGED, part))
    return at_least(retained, percent(limit), part)


def _quality_gates(gates: Gates, m: Measurements, part: Part, served: str) -> list[_Gate]:
    g = gates
    task = comparison(TASK_PERPLEXITY, QUANTIZED, MERGED, part)
    general = comparison(GENERAL_PERPLEXITY, QUANTIZED, MERGED, part)
    passed = comparison(PASS_RATE, QUANTIZED, MERGED, part)
    same = NOTHING_QUANTIZED if served == MERGED else ""
    no_scorer = same if PASS_RATE in m else "no evaluation.task.scorer is given"
    not_counted = same or ("" if QUANTIZED_MODULES in m else NOT_COUNTED)
    no_general = same if GENERAL_PERPLEXITY in m else "no general evaluation set is given"
    return [
        _Gate("taskQuality", f"<= +{g.task_quality.max_increase}", g.task_quality.mode,
              lambda: at_most(
                  estimate(m, task), 1 + percent(g.task_quality.max_increase), part),
              same),
        _Gate("gainRetained", f">= {g.gain_retained.min}", g.gain_retained.mode,
              lambda: _gain_retained(m, g.gain_retained.min, part, served)),
        _Gate("generalQuality", f"<= +{g.general_quality.max_increase}", g.general_quality.mode,
              lambda: at_most(
                  estimate(m, general), 1 + percent(g.general_quality.max_increase), part),
              no_general),
        _Gate("passRate", f">= -{g.pass_rate.max_decrease}", g.pass_rate.mode,
              lambda: at_least(
                  estimate(m, passed), -percent(g.pass_rate.max_decrease), part),
              no_scorer),
        _Gate("fallbacks", f"<= {g.fallbacks.max}", g.fallbacks.mode,
              lambda: _share_of_modules(
                  m, FALLBACKS, g.fallbacks.max, "more, or more varied, calibration data helps"),
              not_counted),
        _Gate("dampingRaised", f"<= {g.damping_raised.max}", g.damping_raised.mode,
              lambda: _share_of_modules(
                  m, DAMPING_RAISED, g.damping_raised.max,
                  "more calibration data, or a higher gptq.damping, helps"),
              not_counted),
        _Gate("weightsSize", f"<= -{g.weights_size.min_decrease}", g.weights_size.mode,
              lambda: at_most(
                  exactly(number(m, WEIGHTS_BYTES, QUANTIZED) / number(m, WEIGHTS_BYTES, BASE)),
                  1 - percent(g.weights_size.min_decrease), part),
              same),
    ]  # fmt: skip


def _speed_gates(gates: Gates, m: Measurements, served: str) -> list[_Gate]:
    speed, first = gates.decode_speed, gates.first_token
    tokens = comparison(at_concurrency(OUTPUT_TOKENS_PER_SECOND, 1), served, BASE)
    ttft = comparison(at_concurrency(TTFT_P50, 1), served, BASE)
    return [
        _Gate("decodeSpeed", f">= -{speed.max_decrease}", speed.mode,
              lambda: at_least(estimate(m, tokens), 1 - percent(speed.max_decrease), Part.ALL)),
        _Gate("firstToken", f"<= +{first.max_increase}", first.mode,
              lambda: at_most(estimate(m, ttft), 1 + percent(first.max_increase), Part.ALL)),
    ]  # fmt: skip


def _custom_gates(
    gates: Gates, m: Measurements, part: Part, served: str, of_speed: bool
) -> list[_Gate]:
    """The user's own, of what `evaluate` measures or of what `benchmark` does."""
    return [
        _custom_gate(custom, m, part, served)
        for custom in gates.custom or ()
        if (custom.metric in (*TIMING_METRICS, GateMetric.PEAK_MEMORY_BYTES)) is of_speed
    ]


def _custom_gate(gate: CustomGate, m: Measurements, part: Part, served: str) -> _Gate:
    metric = _metric_of(gate)
    against = gate.against.value.lower() if gate.against else ""
    is_share = gate.metric is GateMetric.PASS_RATE
    neutral = Fraction(0) if is_share else Fraction(1)
    show = signed_percent if is_share else change_of if against else _plain
    judged_part = part if gate.metric in QUALITY_METRICS else Part.ALL

    def seen() -> Estimate:
        if gate.metric in (GateMetric.WEIGHTS_BYTES, GateMetric.PEAK_MEMORY_BYTES):
            value = number(m, metric, served)
            return exactly(value / number(m, metric, against) if against else value)
        if against:
            return estimate(m, comparison(metric, served, against, judged_part))
        return measured(m, metric, served)

    def observe() -> Observation:
        if gate.min or gate.max_decrease:
            least = finite(gate.min) if gate.min else neutral - percent(gate.max_decrease or "")
            return at_least(seen(), least, judged_part)
        if gate.max:
            return at_most(seen(), finite(gate.max), judged_part)
        change = gate.max_increase or f"-{gate.min_decrease}"
        return at_most(seen(), neutral + percent(change), judged_part)

    limits = {
        f">= {gate.min}": gate.min, f"<= {gate.max}": gate.max,
        f"<= +{gate.max_increase}": gate.max_increase,
        f">= -{gate.max_decrease}": gate.max_decrease,
        f"<= -{gate.min_decrease}": gate.min_decrease,
    }  # fmt: skip
    limit = next(text for text, given in limits.items() if given)
    missing = {
        GateMetric.PASS_RATE: "no evaluation.task.scorer is given",
        GateMetric.PERPLEXITY: "no general evaluation set is given",
    }
    is_optional = is_share or metric == GENERAL_PERPLEXITY
    inapplicable = missing[gate.metric] if is_optional and metric not in m else ""
    if against == served:
        inapplicable = NOTHING_QUANTIZED
    return _Gate(gate.name, limit, gate.mode, observe, inapplicable, show)


def _metric_of(gate: CustomGate) -> str:
    """The key of what a gate looks at."""
    if gate.metric is GateMetric.PERPLEXITY:
        return GENERAL_PERPLEXITY if gate.set is SetName.GENERAL else TASK_PERPLEXITY
    return {
        GateMetric.PASS_RATE: PASS_RATE,
        GateMetric.TIME_TO_FIRST_TOKEN: at_concurrency(TTFT_P50, gate.concurrency),
        GateMetric.TIME_PER_OUTPUT_TOKEN: at_concurrency(TPOT_P50, gate.concurrency),
        GateMetric.OUTPUT_TOKENS_PER_SECOND: at_concurrency(
            OUTPUT_TOKENS_PER_SECOND, gate.concurrency
        ),
        GateMetric.WEIGHTS_BYTES: WEIGHTS_BYTES,
        GateMetric.PEAK_MEMORY_BYTES: PEAK_MEMORY_BYTES,
    }[gate.metric]


def _plain(value: Fraction) -> str:
    """A number in its unit, with four digits."""
    return f"{float(value):,.4g}" if value < 10_000 else f"{float(value):,.0f}"


def _judge_one(gate: _Gate) -> GateResult:
    result = GateResult(name=gate.name, limit=gate.limit, mode=gate.mode, verdict=Verdict.ERROR)
    if gate.inapplicable:
        return result.model_copy(
            update={"verdict": Verdict.NOT_APPLICABLE, "message": gate.inapplicable}
        )
    try:
        found = gate.observe()
    except MissingMeasurement as missing:
        return result.model_copy(update={"message": str(missing)})
    show = _SHOWN.get(gate.name, change_of) if gate.show is None else gate.show
    return result.model_copy(
        update={
            "observed": show(found.seen.value) if found.seen else "",
            "interval": interval_text(found.seen, show) if found.seen else "",
            "verdict": found.verdict,
            "message": found.message,
            "recipe_can_help": found.recipe_can_help,
        }
    )


def change_of(ratio: Fraction) -> str:
    """A ratio as the change that people read: `+1.1%` for 1.011."""
    return signed_percent(ratio - 1)


def _share(fraction: Fraction) -> str:
    return signed_percent(fraction).lstrip("+")


_SHOWN: dict[str, Callable[[Fraction], str]] = {
    "gainRetained": _share,
    "passRate": signed_percent,
    "fallbacks": _share,
    "dampingRaised": _share,
}
"""Of gates that look at no ratio."""


def interval_text(seen: Estimate, show: Callable[[Fraction], str] = change_of) -> str:
    """`[+0.8%, +1.4%]`; empty for what is exact or has no interval."""
    if seen.lower is None or seen.upper is None or not (seen.documents or seen.blocks):
        return ""
    return f"[{show(seen.lower)}, {show(seen.upper)}]"


def _overall(results: Iterable[GateResult]) -> Verdict:
    enforced = [r.verdict for r in results if r.mode is GateMode.ENFORCE and not r.accepted]
    worst = max(enforced, key=SEVERITY.index, default=Verdict.NOT_APPLICABLE)
    # Nothing ungated serves: when no enforced gate applies, nobody has vouched for the model.
    return Verdict.ERROR if worst is Verdict.NOT_APPLICABLE else worst


def _judge(gates: list[_Gate]) -> Judgement:
    results = [_judge_one(g) for g in gates if g.mode is not GateMode.DISABLED]
    return Judgement(verdict=_overall(results), gates=results)


def judge_quality(
    gates: Gates, measurements: Measurements, part: Part = Part.ALL, served: str = QUANTIZED
) -> Judgement:
    """Judge what `quantize` and `evaluate` found: quality, fallbacks and weight bytes.

    Args:
        gates: The limits.
        measurements: Rows and comparisons.
        part: The documents that count.
        served: The condition that would serve: quantized, or merged for method None, where gates
            on what quantization costs do not apply.
    """
    return _judge(_all_quality(gates, measurements, part, served))


def judge(
    gates: Gates, measurements: Measurements, part: Part = Part.ALL, served: str = QUANTIZED
) -> Judgement:
    """Judge all gates, also over the rows of `benchmark`; see `judge_quality`."""
    speed = _speed_gates(gates, measurements, served)
    own = _custom_gates(gates, measurements, part, served, of_speed=True)
    return _judge(_all_quality(gates, measurements, part, served) + speed + own)


def _all_quality(gates: Gates, measurements: Measurements, part: Part, served: str) -> list[_Gate]:
    own = _custom_gates(gates, measurements, part, served, of_speed=False)
    return _quality_gates(gates, measurements, part, served) + own


def accept(judgement: Judgement, reasons: Mapping[str, str]) -> Judgement:
    """The judgement with accepted exceptions, by gate; what is no number stays an Error."""
    results = [
        g.model_copy(update={
            "accepted": reasons[g.name],
            "message": f"accepted: {reasons[g.name]}" + (f" ({g.message})" if g.message else ""),
        })
        if g.name in reasons and g.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)
        else g
        for g in judgement.gates
    ]  # fmt: skip
    return Judgement(verdict=_overall(results), gates=results)


def gates_hash(gates: Gates, overrides: Sequence[Override] = ()) -> str:
    """Identity of a judgement's rules, for the store's paths."""
    return digest_of(rules_document(gates, overrides)).removeprefix("sha256:")[:16]


def rules_document(gates: Gates, overrides: Sequence[Override]) -> dict[str, Any]:
    """What judgements are made by; without exceptions it is the gates alone."""
    exceptions = {"overrides": [o.to_json() for o in overrides]} if overrides else {}
    return gates.to_json() | exceptions
