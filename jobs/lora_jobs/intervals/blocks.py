"""Timing: a ratio over paired blocks, and its 95 % interval when sampling stops at a precision.

Sampling looks at the interval after every block and stops once it is narrow enough. A t interval
of 95 % would be one of 92.7 % then: blocks that happen to agree stop early (Starr 1966). The
correction is a nominal level of 97 %, which holds at least 95 % from 6 blocks on, however large the
noise is against the precision; tests prove it. It may look as often as there are blocks, since a
look sees the width and never the limit of a gate. Extending a benchmark because of its verdict is
not covered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

NOMINAL_LEVEL = 0.97


@dataclass(frozen=True)
class BlockRatio:
    """A ratio and the half-width of its 95 % interval: from ratio / 1.05 to ratio * 1.05 for 0.05.

    Attributes:
        half_width: Infinite for a single block.
    """

    ratio: float
    half_width: float
    blocks: int

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper; None for a single block."""
        if math.isinf(self.half_width):
            return None
        return self.ratio / (1 + self.half_width), self.ratio * (1 + self.half_width)


def block_ratio(candidate: Sequence[float], baseline: Sequence[float]) -> BlockRatio:
    """Ratio and t interval (df = blocks - 1) from paired block log-ratios, corrected for looks.

    Args:
        candidate: One positive number a block.
        baseline: The same blocks.
    """
    logs = [math.log(c / b) for c, b in zip(candidate, baseline, strict=True)]
    blocks = len(logs)
    half_width = math.inf
    if blocks > 1:
        error = stdev(logs) / math.sqrt(blocks)
        half_width = math.expm1(min(t_quantile(blocks - 1) * error, 700.0))
    return BlockRatio(math.exp(fmean(logs)), half_width, blocks)


def t_quantile(degrees: int) -> float:
    """The quantile of Student's t that the half-width is made with."""
    from scipy.stats import t  # half a second to import; only here

    return float(t.ppf((1 + NOMINAL_LEVEL) / 2, degrees))
