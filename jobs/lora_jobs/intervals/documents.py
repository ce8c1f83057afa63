"""Quality: a ratio of sums over documents, and its 95 % interval.

A document is what was drawn; its tokens go together. So the estimate is the ratio of two sums over
documents, linearised, with the documents as clusters. Two small-sample corrections are known, and
each fails where the other holds:

- CR2 (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018): residuals scaled by their leverage, t
  quantile with Satterthwaite's degrees of freedom. Right for unequal sizes and heavy tails; too
  sure of itself where few documents carry the damage.
- Bootstrap-t (Efron 1979; Hall 1988) over documents: follows that skewness; too narrow for few
  documents with symmetric noise.

The interval is the hull of both, so that a bound is never better than either says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVEL = 0.95
MIN_DOCUMENTS = 10
"""Below it neither correction is known to hold, and there is no interval."""
RESAMPLES = 999
SEED = 0
CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class RatioOfSums:
    """A ratio and its bounds.

    Attributes:
        bounds: Lower and upper; None when there are too few documents, or when all but a few say
            the same, so that what those few say is anybody's guess.
    """

    value: float
    bounds: tuple[float, float] | None


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> RatioOfSums:
    """Sum of numerators by sum of denominators, a pair for each document.

    Args:
        numerators: One finite number a document, e.g. its paired difference of NLL in nats.
        denominators: The same documents, e.g. their scored tokens; their sum is not 0.
    """
    import numpy as np

    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    value = float(y.sum() / x.sum())
    shares = x / x.sum()
    if len(x) < MIN_DOCUMENTS or shares.max() >= 1:
        return RatioOfSums(value, None)
    if np.ptp(y - value * x) == 0:
        return RatioOfSums(value, (value, value))
    found = [_by_cr2(y, x, value), _by_bootstrap(y, x, value)]
    bounds = min(low for low, _ in found), max(high for _, high in found)
    return RatioOfSums(value, bounds if bool(np.isfinite(bounds).all()) else None)


def effective_documents(sizes: Sequence[float]) -> float:
    """(sum n)^2 / sum n^2: as many documents of equal size would say as much (Kish 1965).

    Args:
        sizes: Scored tokens of each document.
    """
    return sum(sizes) ** 2 / sum(size * size for size in sizes)


def _by_cr2(y: "Floats", x: "Floats", value: float) -> tuple[float, float]:
    """CR2 for clusters of one observation and a single mean.

    With shares h of the denominators and a working variance that grows with them, E[e^2] is
    proportional to h (1 - h), so e^2 / (1 - h) is unbiased; the degrees of freedom match its first
    two moments.
    """
    from scipy.stats import t

    shares = x / x.sum()
    residuals = (y - value * x) / x.sum()
    variance = float((residuals**2 / (1 - shares)).sum())
    leverages = shares**2 / (1 - shares)
    spread = (shares**2).sum() + leverages.sum() ** 2 - (leverages**2).sum()
    half_width = float(t.ppf((1 + LEVEL) / 2, 1 / spread)) * variance**0.5
    return value - half_width, value + half_width


def _by_bootstrap(y: "Floats", x: "Floats", value: float) -> tuple[float, float]:
    """Bootstrap-t: quantiles of the studentized ratio over resampled documents, reproducible."""
    import numpy as np

    found = []
    columns = np.stack([x, y, y * y, x * y, x * x], axis=1)
    at_once = max(1, CELLS_AT_ONCE // len(x))
    for start in range(0, RESAMPLES, at_once):
        times = _resampled(len(x), min(at_once, RESAMPLES - start), start)
        xs, ys, yy, xy, xx = (times @ columns).T
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = ys / xs
            errors = np.sqrt(np.maximum(yy - 2 * ratios * xy + ratios**2 * xx, 0)) / np.abs(xs)
            found.append((ratios - value) / errors)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.nanquantile(np.concatenate(found), tails, method="nearest")
    error = float(np.sqrt(((y - value * x) ** 2).sum()) / abs(x.sum()))
    return value - float(high) * error, value - float(low) * error


@lru_cache(maxsize=2)
def _resampled(documents: int, resamples: int, first: int) -> "Floats":
    """How often each document is drawn, a row for each resample; all estimates share the draws."""
    import numpy as np

    generator = np.random.default_rng([SEED, first])
    shares = np.full(documents, 1 / documents)
    return generator.multinomial(documents, shares, size=resamples).astype(np.float64)
