"""What the report says of quality: where the loss comes from, and document by document. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_api.estimates import (
    DIVERGENCE,
    GAIN_RETAINED,
    TOP_TOKEN_AGREEMENT,
    Estimate,
    MissingMeasurement,
    comparison,
    estimate,
)
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED, TASK_PERPLEXITY, Measurements
from lora_api.report import PairedDifferences, Part

MAX_POINTS = 400
PAIRS = ((QUANTIZED, MERGED), (MERGED, DYNAMIC))
"""What quantization does, and what merging does."""


def attribution(measurements: Measurements) -> tuple[list[Part], str]:
    """Where the task's negative log-likelihood comes from, in nats per token, and in one line.

    All with 95 % intervals over all documents, from the ratios of perplexity: their logarithms are
    the differences. What was not measured is left out.
    """
    parts: list[Part] = []
    told: list[str] = []

    def add(name: Any, key: str, of: Callable[[float], float], text: str, show: str) -> None:
        try:
            seen = estimate(measurements, key)
        except MissingMeasurement:
            return
        parts.append(_part(name, seen, of))
        told.append(text.format(_with_interval(seen, lambda v: format(of(v), show))))

    def task(condition: str, against: str) -> str:
        return comparison(TASK_PERPLEXITY, condition, against)

    add("adapterGain", task(BASE, MERGED), math.log, "the adapter gains {} nats per token", "+.3f")
    add("mergeLoss", task(MERGED, DYNAMIC), math.log, "merging costs {}", "+.4f")
    add("quantizationLoss", task(QUANTIZED, MERGED), math.log, "4 bits cost {}", "+.4f")
    add("gainRetained", comparison(GAIN_RETAINED, QUANTIZED, MERGED), lambda v: v,
        "{} of the gain is kept", ".1%")  # fmt: skip
    add("mergeDivergence", comparison(DIVERGENCE, MERGED, DYNAMIC), lambda v: v,
        "the merged model is {} nats from the unmerged one (Kullback-Leibler, at least)",
        ".5f")  # fmt: skip
    add("adapterDivergence", comparison(DIVERGENCE, MERGED, BASE), lambda v: v,
        "and {} from the base", ".4f")  # fmt: skip
    add("quantizationDivergence", comparison(DIVERGENCE, QUANTIZED, MERGED), lambda v: v,
        "the 4-bit model is {} nats from the merged one (Kullback-Leibler, at least)",
        ".4f")  # fmt: skip
    add("topTokenAgreement", comparison(TOP_TOKEN_AGREEMENT, QUANTIZED, MERGED), lambda v: v,
        "and names the same likeliest token at {} of the positions", ".1%")  # fmt: skip
    return parts, f"{', '.join(told)}." if told else ""


def paired_differences(
    scores: Mapping[str, Any] | None, measurements: Measurements
) -> list[PairedDifferences]:
    """Document by document, for every set and pair that was measured.

    Args:
        scores: What `evaluate` kept of the judged candidate; None when there is nothing.
        measurements: With the intervals of the means.
    """
    by_set: dict[str, dict[str, dict[int, tuple[int, float]]]] = {}
    for score in scores["scores"] if scores else ():
        by_set.setdefault(score["set"], {})[score["condition"]] = _by_document(score)
    found = []
    for name, conditions in sorted(by_set.items(), reverse=True):  # the task first
        for condition, against in PAIRS:
            if {condition, against} <= conditions.keys():
                one, other = conditions[condition], conditions[against]
                found.append(_paired(name, condition, against, one, other, measurements))
    return found


def _by_document(score: Mapping[str, Any]) -> dict[int, tuple[int, float]]:
    """(Scored tokens, NLL in nats) of each document."""
    sums: dict[int, tuple[int, float]] = {}
    for document, tokens, nll in zip(
        score["documents"], score["tokens"], score["nlls"], strict=True
    ):
        seen = sums.get(document, (0, 0.0))
        sums[document] = (seen[0] + tokens, seen[1] + float(nll))
    return sums


def _paired(
    name: str,
    condition: str,
    against: str,
    one: Mapping[int, tuple[int, float]],
    other: Mapping[int, tuple[int, float]],
    measurements: Measurements,
) -> PairedDifferences:
    differences = sorted((one[d][1] - other[d][1]) / one[d][0] for d in one)
    tokens = sum(count for count, _ in one.values())
    total = math.fsum(one[d][1] - other[d][1] for d in one)
    lower = upper = None
    try:
        seen = estimate(measurements, comparison(f"Perplexity/{name}", condition, against))
        if seen.lower is not None and seen.upper is not None:
            lower, upper = math.log(seen.lower), math.log(seen.upper)
    except MissingMeasurement:
        pass
    return PairedDifferences(
        evaluation_set=name,
        condition=condition,
        against=against,
        nats_per_token=[round(d, 6) for d in thinned(differences)],
        documents=len(differences),
        mean=round(total / tokens, 6),
        lower=lower,
        upper=upper,
    )


def thinned(ordered: Sequence[float], most: int = MAX_POINTS) -> list[float]:
    """At most `most` of an ordered list, first and last among them, evenly drawn."""
    if len(ordered) <= most:
        return list(ordered)
    return [ordered[round(i * (len(ordered) - 1) / (most - 1))] for i in range(most)]


def _part(name: Any, seen: Estimate, of: Callable[[float], float]) -> Part:
    if seen.lower is None or seen.upper is None:
        return Part(name=name, value=f"{of(float(seen.value)):.6f}")
    low, high = f"{of(float(seen.lower)):.6f}", f"{of(float(seen.upper)):.6f}"
    return Part(name=name, value=f"{of(float(seen.value)):.6f}", lower=low, upper=high)


def _with_interval(seen: Estimate, show: Callable[[float], str]) -> str:
    if seen.lower is None or seen.upper is None:
        return show(float(seen.value))
    return f"{show(float(seen.value))} [{show(float(seen.lower))}, {show(float(seen.upper))}]"
