"""Two conditions on the same documents: ratios of perplexity, gain retained, with intervals. Pure.

Everything is paired per document, by the sum over its windows. Perplexity ratios are exponentials
of the difference in NLL per token, and so are their bounds.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping

from lora_api.estimates import GAIN_RETAINED, LOWER, Part, comparison
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED, Measurements
from lora_jobs.evaluating.scores import Score
from lora_jobs.intervals.documents import effective_documents, ratio_of_sums
from lora_jobs.intervals.rows import over_documents

TASK = "task"
JUDGED = ((QUANTIZED, MERGED), (BASE, MERGED))
"""Pairs that gates look at, over all documents and over each half."""
TOLD = ((MERGED, DYNAMIC), (DYNAMIC, BASE), (QUANTIZED, BASE))
"""Pairs that only the report tells."""


def comparisons_of(scores: Iterable[Score]) -> Measurements:
    """The rows of every pair that was measured; scores of a set are of the same windows."""
    by_set: dict[str, dict[str, Score]] = {}
    for score in scores:
        if all(map(math.isfinite, score.nlls)):
            by_set.setdefault(score.set_name, {})[score.condition] = score
    found: Measurements = {}
    for name, by_condition in by_set.items():
        for part in Part:
            found |= _Documents(by_condition, part).rows(name)
    return found


def documents_of(score: Score, part: Part) -> list[int]:
    """The documents of a part: all, or one half of them."""
    return part_of(score.documents, part)


def part_of(numbers: Iterable[int], part: Part) -> list[int]:
    """The numbers of the documents of a part: all, or one half of them.

    The halves are drawn by the hash of a document's number: reproducible, and blind to the order of
    a set that was sorted or alternates.
    """
    if part is Part.ALL:
        return sorted(set(numbers))
    drawn = sorted(set(numbers), key=lambda n: hashlib.sha256(str(n).encode()).digest())
    return sorted(drawn[0::2] if part is Part.SELECTION else drawn[1::2])


class _Documents:
    """The scores of one set, summed by document, over one part of it."""

    def __init__(self, by_condition: Mapping[str, Score], part: Part) -> None:
        self.part = part
        some = next(iter(by_condition.values()))
        self.numbers = documents_of(some, part)
        self.tokens = _sums(self.numbers, some.documents, some.tokens)
        self.nlls = {c: _sums(self.numbers, s.documents, s.nlls) for c, s in by_condition.items()}

    def rows(self, name: str) -> Measurements:
        found: Measurements = {}
        pairs = (JUDGED + TOLD) if self.part is Part.ALL else JUDGED
        for condition, against in pairs:
            key = comparison(f"Perplexity/{name}", condition, against, self.part)
            if row := self._perplexity_ratio(condition, against):
                found[key] = row
        gain = found.get(comparison(f"Perplexity/{TASK}", BASE, MERGED, self.part), {})
        # A share of a gain that may be nothing has no meaning, and its interval no end.
        if name == TASK and float(gain.get(LOWER, "0")) > 1 and (row := self._gain_retained()):
            found[comparison(GAIN_RETAINED, QUANTIZED, MERGED, self.part)] = row
        return found

    def _perplexity_ratio(self, condition: str, against: str) -> dict[str, str] | None:
        if not {condition, against} <= self.nlls.keys() or not self.numbers:
            return None
        difference = ratio_of_sums(self._difference(condition, against), self.tokens)
        bounds = difference.bounds
        return self._row(
            _exponential(difference.value),
            (_exponential(bounds[0]), _exponential(bounds[1])) if bounds else None,
        )

    def _gain_retained(self) -> dict[str, str] | None:
        if QUANTIZED not in self.nlls:
            return None
        retained = ratio_of_sums(self._difference(BASE, QUANTIZED), self._difference(BASE, MERGED))
        return self._row(retained.value, retained.bounds)

    def _difference(self, one: str, other: str) -> list[float]:
        return [a - b for a, b in zip(self.nlls[one], self.nlls[other], strict=True)]

    def _row(self, value: float, bounds: tuple[float, float] | None) -> dict[str, str] | None:
        return over_documents(value, bounds, len(self.numbers), effective_documents(self.tokens))


def _sums(numbers: list[int], documents: Iterable[int], values: Iterable[float]) -> list[float]:
    """Values summed by document, in the order of the documents' numbers."""
    by_document: dict[int, list[float]] = {number: [] for number in numbers}
    for document, value in zip(documents, values, strict=True):
        if document in by_document:
            by_document[document].append(value)
    return [math.fsum(by_document[number]) for number in numbers]


def _exponential(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
