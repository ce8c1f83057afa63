"""Two claims that people make of merging, decided by paired blocks. Pure.

    merged is as fast as base: two one-sided tests against a margin. Both reject, each at its level,
        exactly when the interval of the ratio lies between 1 / (1 + margin) and 1 + margin
    unmerged is slower than base: one one-sided test

Both use the interval of `blocks`, whose bounds hold at 2.5 % each wherever sampling stopped.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from lora_api.estimates import MIN_BLOCKS
from lora_jobs.intervals.blocks import BlockRatio, block_ratio

MARGIN = 0.05
"""Within which two speeds count as equal: the default limit of `decodeSpeed`."""


class Claimed(StrEnum):
    """What the blocks say of a claim."""

    SUPPORTED = "Supported"
    REFUTED = "Refuted"
    UNDECIDED = "Undecided"


class Finding(NamedTuple):
    """A claim's verdict, what it rests on, and what is missing when it is undecided."""

    verdict: Claimed
    ratio: BlockRatio | None
    message: str = ""


def paired_ratio(
    candidate: Mapping[int, float], baseline: Mapping[int, float]
) -> BlockRatio | None:
    """The ratio over the blocks that have both; None when there is none."""
    blocks = sorted(candidate.keys() & baseline.keys())
    if not blocks:
        return None
    return block_ratio([candidate[b] for b in blocks], [baseline[b] for b in blocks])


def as_fast(ratio: BlockRatio | None, margin: float = MARGIN) -> Finding:
    """Whether two speeds are equivalent, by their ratio."""
    if too_little := _too_little(ratio):
        return Finding(Claimed.UNDECIDED, ratio, too_little)
    assert ratio is not None  # else there is too little
    lower, upper = ratio.bounds or (0.0, 0.0)
    least, most = 1 / (1 + margin), 1 + margin
    if least <= lower and upper <= most:
        return Finding(Claimed.SUPPORTED, ratio)
    if upper < least or lower > most:
        return Finding(Claimed.REFUTED, ratio)
    return Finding(Claimed.UNDECIDED, ratio, f"the interval holds a limit of {margin:.0%}")


def slower(ratio: BlockRatio | None) -> Finding:
    """Whether the first speed is lower than the second, by their ratio."""
    if too_little := _too_little(ratio):
        return Finding(Claimed.UNDECIDED, ratio, too_little)
    assert ratio is not None  # else there is too little
    lower, upper = ratio.bounds or (0.0, 0.0)
    if upper < 1:
        return Finding(Claimed.SUPPORTED, ratio)
    if lower >= 1:
        return Finding(Claimed.REFUTED, ratio)
    return Finding(Claimed.UNDECIDED, ratio, "the interval holds no difference")


def _too_little(ratio: BlockRatio | None) -> str:
    blocks = ratio.blocks if ratio else 0
    if blocks >= MIN_BLOCKS:
        return ""
    return (
        f"both were measured in {blocks} of the {MIN_BLOCKS} blocks that it takes; "
        "`lora-jobs benchmark --every-condition` measures all in each"
    )
