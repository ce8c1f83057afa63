"""Ratios of two conditions with their 95 % intervals, as they travel in measurements. Pure.

Beside a metric's row by condition stands one row for each comparison:

    {"Perplexity/task:quantized/merged":
        {"value": "1.011", "lower": "1.008", "upper": "1.014",
         "documents": "104", "effectiveDocuments": "101.7"},
     "OutputTokensPerSecond@1:quantized/base":
        {"value": "1.90", "lower": "1.85", "upper": "1.95", "blocks": "9"}, ...}

A timing metric's row by condition holds bounds of its numbers too, for gates with a plain limit:

    "OutputTokensPerSecond@1": {"quantized": "190", "quantizedLower": "185",
                                "quantizedUpper": "195", "blocks": "9"}

They are computed by the stage that measured. Judging compares their bounds, exactly: `Fraction`s of
decimal strings. `#selection` and `#confirmation` are the same over one half of the documents each:
recipes are chosen on the first, and the chosen one is judged on the second.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

MIN_EFFECTIVE_DOCUMENTS = 30
MIN_BLOCKS = 6
VALUE, LOWER, UPPER = "value", "lower", "upper"
DOCUMENTS, EFFECTIVE_DOCUMENTS, BLOCKS = "documents", "effectiveDocuments", "blocks"
GAIN_RETAINED = "GainRetained/task"
PASS_RATE = "PassRate/task"  # noqa: S105 - a metric
ANSWER_TOKENS = "AnswerTokens/task"
DIVERGENCE = "KullbackLeibler/task"
TOP_TOKEN_AGREEMENT = "TopTokenAgreement/task"  # noqa: S105 - a metric
LM_EVAL = "LmEval/"
"""How metrics of lm-evaluation-harness begin: then task and metric, scores between 0 and 1."""
_OF_ANY_SIGN = (GAIN_RETAINED, PASS_RATE, DIVERGENCE, TOP_TOKEN_AGREEMENT, LM_EVAL)
"""Shares, differences and distances; all other comparisons are ratios of positive numbers."""
_COMPARES = ":"


class Part(StrEnum):
    """Which documents an estimate is over."""

    ALL = ""
    SELECTION = "selection"
    CONFIRMATION = "confirmation"


class MissingMeasurement(Exception):
    """A number that a gate needs is absent, or is none that it can be judged by."""


def comparison(metric: str, condition: str, against: str, part: Part = Part.ALL) -> str:
    """The key of a comparison, e.g. `Perplexity/task:quantized/merged#selection`."""
    return f"{metric}{_COMPARES}{condition}/{against}" + (f"#{part.value}" if part else "")


def bounds_of(condition: str) -> tuple[str, str]:
    """The keys, in a metric's row by condition, of the 95 % interval of one of its numbers."""
    return f"{condition}{LOWER.capitalize()}", f"{condition}{UPPER.capitalize()}"


def is_comparison(key: str) -> bool:
    """Whether a row holds an estimate and not one number a condition."""
    return _COMPARES in key


class Estimate(NamedTuple):
    """A value with its interval; exact numbers have bounds equal to the value.

    Attributes:
        lower: None, as is `upper`, when there was too little to make an interval of.
        documents: What it rests on, 0 when it does not rest on documents.
        blocks: The same for blocks.
    """

    value: Fraction
    lower: Fraction | None
    upper: Fraction | None
    documents: int = 0
    effective_documents: Fraction = Fraction(0)
    blocks: int = 0


def measured(
    measurements: Mapping[str, Mapping[str, str]], metric: str, condition: str
) -> Estimate:
    """One condition's number over blocks, with its interval where there is one.

    Raises:
        MissingMeasurement: It is absent, unreadable or not positive, or its bounds do not hold it.
    """
    row, (lower, upper) = measurements.get(metric, {}), bounds_of(condition)
    if condition not in row:
        raise MissingMeasurement(f"{metric} of {condition} was not measured")
    kept = {VALUE: row[condition], BLOCKS: row.get(BLOCKS, "1")}
    kept |= {key: row[name] for key, name in ((LOWER, lower), (UPPER, upper)) if name in row}
    return estimate({metric: kept}, metric)


def exactly(value: Fraction) -> Estimate:
    """What was counted and not sampled."""
    return Estimate(value, value, value)


def inverse(seen: Estimate) -> Estimate:
    """The same comparison the other way round; all must be positive.

    Raises:
        MissingMeasurement: The value or a bound is not positive.
    """
    if seen.value <= 0 or (seen.lower is not None and seen.lower <= 0):
        raise MissingMeasurement("a ratio that may be 0 has no inverse")
    return seen._replace(
        value=1 / seen.value,
        lower=1 / seen.upper if seen.upper is not None else None,
        upper=1 / seen.lower if seen.lower is not None else None,
    )


def finite(text: str) -> Fraction:
    """The exact value of a decimal string.

    Raises:
        ValueError: It is no finite number.
    """
    # As a float first: the exact fraction of 1e999999999 would fill the memory.
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is not finite")
    try:
        return Fraction(Decimal(text))
    except InvalidOperation:
        raise ValueError(f"{text!r} is no decimal number") from None


def estimate(measurements: Mapping[str, Mapping[str, str]], key: str) -> Estimate:
    """Read a comparison.

    Raises:
        MissingMeasurement: It is absent or unreadable, its bounds do not hold its value, it is a
            ratio of positive numbers and not positive, or it says not what it rests on.
    """
    row = measurements.get(key)
    if row is None:
        raise MissingMeasurement(f"{key} was not measured")
    try:
        found = Estimate(
            value=finite(row[VALUE]),
            lower=finite(row[LOWER]) if LOWER in row else None,
            upper=finite(row[UPPER]) if UPPER in row else None,
            documents=int(row.get(DOCUMENTS, "0")),
            effective_documents=finite(row.get(EFFECTIVE_DOCUMENTS, "0")),
            blocks=int(row.get(BLOCKS, "0")),
        )
    except (ValueError, KeyError) as error:
        raise MissingMeasurement(f"{key} cannot be read: {error}") from None
    if (found.lower is None) != (found.upper is None):
        raise MissingMeasurement(f"{key} has one bound only")
    low, high = found.lower, found.upper
    if low is not None and high is not None and not low <= found.value <= high:
        raise MissingMeasurement(f"{key} has bounds that do not hold its value")
    if found.value <= 0 and not key.startswith(_OF_ANY_SIGN):
        raise MissingMeasurement(f"{key} is not positive, as a ratio of positive numbers is")
    if found.documents < 1 and found.blocks < 1:
        raise MissingMeasurement(f"{key} does not say how many documents or blocks it rests on")
    return found
