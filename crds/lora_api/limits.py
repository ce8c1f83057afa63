"""One estimate against one limit: Passed, Failed or Inconclusive, and what would decide. Pure."""

import math
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from lora_api.estimates import MIN_BLOCKS, MIN_EFFECTIVE_DOCUMENTS, Estimate, Part


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


class Observation(NamedTuple):
    """What a gate looks at, and what came of it."""

    seen: Estimate | None
    verdict: Verdict
    message: str = ""
    recipe_can_help: bool = True


def at_most(seen: Estimate, limit: Fraction, part: Part) -> Observation:
    """Whether the whole interval lies at or below the limit."""
    return _decided(seen, limit, part, is_good=seen.value <= limit, is_ceiling=True)


def at_least(seen: Estimate, limit: Fraction, part: Part) -> Observation:
    """Whether the whole interval lies at or above the limit."""
    return _decided(seen, limit, part, is_good=seen.value >= limit, is_ceiling=False)


def _decided(
    seen: Estimate, limit: Fraction, part: Part, is_good: bool, is_ceiling: bool
) -> Observation:
    """Passed, Failed or Inconclusive, by where the interval lies."""
    lower, upper = seen.lower, seen.upper
    if missing := too_little_in(seen, part):
        return Observation(seen, Verdict.INCONCLUSIVE, missing)
    assert lower is not None and upper is not None  # noqa: PT018 - else there is too little
    keeps = upper <= limit if is_ceiling else lower >= limit
    breaks = lower > limit if is_ceiling else upper < limit
    if keeps or breaks:
        return Observation(seen, Verdict.PASSED if keeps else Verdict.FAILED)
    reaching = upper - seen.value if is_good == is_ceiling else seen.value - lower
    return Observation(seen, Verdict.INCONCLUSIVE, _what_decides(seen, limit, reaching, part))


def too_little_in(seen: Estimate, part: Part) -> str:
    """What is missing before an interval can be judged by; empty when nothing is."""
    is_exact = not seen.documents and not seen.blocks
    if is_exact:
        return ""
    if seen.blocks:
        if seen.blocks >= MIN_BLOCKS and seen.lower is not None:
            return ""
        return (
            f"{seen.blocks} of the {MIN_BLOCKS} blocks that a judgement needs were run; "
            "a longer benchmark.maxDuration gives more"
        )
    if seen.effective_documents < MIN_EFFECTIVE_DOCUMENTS:
        share = MIN_EFFECTIVE_DOCUMENTS / max(seen.effective_documents, Fraction(1))
        missing = (math.ceil(seen.documents * share) - seen.documents) * _parts(part)
        return (
            f"{float(seen.effective_documents):.1f} of the {MIN_EFFECTIVE_DOCUMENTS} effective "
            f"documents that a judgement needs are there{_where(part)}: "
            f"add about {missing} like these"
        )
    if seen.lower is None:
        return f"the difference lies in too few of {seen.documents} documents to tell: add others"
    return ""


def _what_decides(seen: Estimate, limit: Fraction, reaching: Fraction, part: Part) -> str:
    """How much measuring would bring the interval to one side, if the value stays.

    Args:
        seen: What was estimated.
        limit: Within its interval.
        reaching: From the value to the bound that lies beyond the limit.
        part: What the documents are of.
    """
    distance = abs(limit - seen.value)
    told = "the interval holds the limit; "
    if seen.blocks:
        relative = max(limit, seen.value) / min(limit, seen.value) - 1
        tenths = math.floor(relative * 1000)
        if not tenths:
            return f"{told}the value is at the limit: no benchmark.precision decides"
        return f"{told}a benchmark.precision of {tenths / 10:g}% decides if the value stays"
    if not distance:
        return f"{told}the value is at the limit: no number of documents decides"
    # The width of an interval falls with the square root of the number of documents.
    needed = math.ceil(seen.documents * (reaching / distance) ** 2) * _parts(part)
    return f"{told}about {needed} documents{_where(part)} decide if the value stays"


def _parts(part: Part) -> int:
    return 1 if part is Part.ALL else 2


def _where(part: Part) -> str:
    return "" if part is Part.ALL else f" (in the whole set; half of it is for {part.value})"
