"""The difference of two shares over the same records, and its 95 % interval.

Tango's score interval (Statistics in Medicine 17, 1998, 891-908): all differences that a score test
does not reject, with the chance of a disagreement estimated under each. Unlike intervals from a
standard error it has a width where no record is answered differently.
"""

import math
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Disagreement:
    """How two conditions answered the same records.

    Attributes:
        gained: Records that only the first answers rightly.
        lost: Records that only the second does.
        records: All of them, at least 1.
    """

    gained: int
    lost: int
    records: int

    @property
    def difference(self) -> float:
        """Share of the first minus share of the second."""
        return (self.gained - self.lost) / self.records

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper of the difference, within -1 and 1."""
        from scipy.optimize import brentq
        from scipy.stats import norm

        z = float(norm.ppf((1 + LEVEL) / 2))

        def beyond(bound: float, sign: float) -> float:
            return self._score(bound) - sign * z

        edge = 1 - 1e-12
        low = -1.0 if beyond(-edge, 1) < 0 else float(brentq(beyond, -edge, self.difference, (1,)))
        high = 1.0 if beyond(edge, -1) > 0 else float(brentq(beyond, self.difference, edge, (-1,)))
        return low, high

    def _score(self, difference: float) -> float:
        """The test statistic of a supposed difference; falls as it grows."""
        n, b, c, d = self.records, self.gained, self.lost, difference
        linear = -b - c + (2 * n - b + c) * d
        root = math.sqrt(max(0.0, linear * linear + 8 * n * c * d * (1 - d)))
        lost_share = max(0.0, (root - linear) / (4 * n))
        variance = n * (2 * lost_share + d * (1 - d))
        distance = b - c - n * d
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)
