"""The four conditions side by side: memory, first token, throughput, perplexity.

base (the base model), dynamic (base with the adapter unmerged), merged, quantized. What was not
measured is `-`, never a guess.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

from lora_api.estimates import (
    ANSWER_TOKENS,
    LM_EVAL,
    PASS_RATE,
    comparison,
    estimate,
    finite,
    inverse,
    is_comparison,
)
from lora_api.gates import (
    BASE,
    CONDITIONS,
    GENERAL_PERPLEXITY,
    OUTPUT_TOKENS_PER_SECOND,
    PEAK_MEMORY_BYTES,
    QUANTIZED,
    TASK_PERPLEXITY,
    TPOT_P50,
    TTFT_P50,
    WEIGHTS_BYTES,
    MissingMeasurement,
    change_of,
    interval_text,
    number,
    signed_percent,
)

NOT_MEASURED = "-"
_Rows = Mapping[str, Mapping[str, str]]


class Row(NamedTuple):
    """One metric: its label, a text for each of `CONDITIONS`, and quantized against base.

    `interval` is the 95 % interval of the change, empty for what is exact or has none.
    `against_base` says the same of every condition, in one text each; empty where nothing is known.
    """

    label: str
    cells: tuple[str, ...]
    change: str
    interval: str
    against_base: tuple[str, ...] = ()


class _Metric(NamedTuple):
    label: str
    show: Callable[[float], str]


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.4g} {unit}"
        value /= 1024
    return f"{value:,.2f} GiB"


_METRICS = {
    WEIGHTS_BYTES: _Metric("Weights", _bytes),
    PEAK_MEMORY_BYTES: _Metric("Peak memory", _bytes),
    TTFT_P50: _Metric("TTFT p50 (ms)", lambda v: f"{v:,.1f}"),
    TPOT_P50: _Metric("TPOT p50 (ms)", lambda v: f"{v:,.2f}"),
    OUTPUT_TOKENS_PER_SECOND: _Metric("Throughput (output tokens/s)", lambda v: f"{v:,.1f}"),
    TASK_PERPLEXITY: _Metric("Perplexity, task", lambda v: f"{v:,.3f}"),
    GENERAL_PERPLEXITY: _Metric("Perplexity, general", lambda v: f"{v:,.3f}"),
    PASS_RATE: _Metric("Answered right", lambda v: f"{v:.1%}"),
    ANSWER_TOKENS: _Metric("Tokens of an answer, free", lambda v: f"{v:,.1f}"),
}
_ALWAYS = (PEAK_MEMORY_BYTES, TTFT_P50, OUTPUT_TOKENS_PER_SECOND, TASK_PERPLEXITY)


def condition_rows(measurements: _Rows) -> list[Row]:
    """The articles' table from a line's measurements, in a fixed order."""
    rows = []
    for metric, (label, show) in (_METRICS | _of_lm_eval(measurements)).items():
        keys = sorted(
            (k for k in measurements if k.partition("@")[0] == metric and not is_comparison(k)),
            key=_concurrency,
        ) or [metric] * (metric in _ALWAYS)
        for key in keys:
            at = f" at concurrency {_concurrency(key)}" if "@" in key else ""
            cells = tuple(_cell(measurements, key, condition, show) for condition in CONDITIONS)
            change, interval = _change(measurements, key), _interval(measurements, key, QUANTIZED)
            against_base = tuple(_against_base(measurements, key, c) for c in CONDITIONS)
            rows.append(Row(label + at, cells, change, interval, against_base))
    return rows


def _of_lm_eval(measurements: _Rows) -> dict[str, _Metric]:
    """The metrics of imported tasks, in the order of their names."""
    names = sorted(k for k in measurements if k.startswith(LM_EVAL) and not is_comparison(k))
    return {n: _Metric(f"lm-eval {n.removeprefix(LM_EVAL)}", lambda v: f"{v:.1%}") for n in names}


def _is_share(key: str) -> bool:
    """Shares may be 0, and differ by points."""
    return key == PASS_RATE or key.startswith(LM_EVAL)


def _cell(measurements: _Rows, key: str, condition: str, show: Callable[[float], str]) -> str:
    try:
        return show(float(_value(measurements, key, condition)))
    except MissingMeasurement:
        return NOT_MEASURED


def _change(measurements: _Rows, key: str, condition: str = QUANTIZED) -> str:
    try:
        value, base = (_value(measurements, key, c) for c in (condition, BASE))
    except MissingMeasurement:
        return NOT_MEASURED
    return signed_percent(value - base if _is_share(key) else value / base - 1)


def _value(measurements: _Rows, key: str, condition: str) -> Fraction:
    """A share may be 0; nothing else may."""
    if not _is_share(key):
        return number(measurements, key, condition)
    if condition not in measurements.get(key, {}):
        raise MissingMeasurement(f"{key} of {condition} was not measured")
    return finite(measurements[key][condition])


def _interval(measurements: _Rows, key: str, condition: str) -> str:
    try:
        show = signed_percent if _is_share(key) else change_of
        return interval_text(estimate(measurements, comparison(key, condition, BASE)), show)
    except MissingMeasurement:
        pass
    try:
        return interval_text(inverse(estimate(measurements, comparison(key, BASE, condition))))
    except MissingMeasurement:
        return ""


def _against_base(measurements: _Rows, key: str, condition: str) -> str:
    if condition == BASE:
        return ""
    change = _change(measurements, key, condition)
    if change == NOT_MEASURED:
        return ""
    interval = _interval(measurements, key, condition)
    # Timing without an interval was seen once or twice: it must not read like the exact rows.
    return f"{change} {interval or ('(no interval)' if '@' in key else '')}".rstrip()


def _concurrency(key: str) -> int:
    tail = key.partition("@")[2]
    return int(tail) if tail.isdigit() else 0
