"""What a model would say next, and how far two models are apart in it.

Of every scored position of a sample the most likely tokens are kept with their log-probabilities,
so that models are compared which are never in memory together. The Kullback-Leibler divergence is
taken over the tokens that both models hold likely, those that only the first does, and all others.
Joining outcomes never raises it, so it is a lower bound; what it leaves out is in the tails.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_api.estimates import DIVERGENCE, TOP_TOKEN_AGREEMENT, comparison
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED, Measurements
from lora_jobs.evaluating.measure import EvaluationSet, Look
from lora_jobs.evaluating.windows import Window
from lora_jobs.intervals.documents import effective_documents, ratio_of_sums
from lora_jobs.intervals.rows import over_documents

DISTRIBUTIONS = "evaluate-distributions"
SAMPLE_TOKENS = 1024
"""Positions that are looked at."""
TOKENS_KEPT = 32
"""Most likely tokens that are kept of a position."""
SMALLEST_REST = 1e-9
PAIRS = (
    (DYNAMIC, BASE),
    (MERGED, BASE),
    (MERGED, DYNAMIC),
    (QUANTIZED, BASE),
    (QUANTIZED, DYNAMIC),
    (QUANTIZED, MERGED),
)
"""What is compared with what; the second of each is the one that counts as true."""


@dataclass(frozen=True)
class Distributions:
    """The most likely next tokens at each position of the sample, the likeliest first.

    Attributes:
        documents: The number of each position's document.
        tokens: Token ids, (positions, kept).
        logs: Their log-probabilities in nats, of the same shape.
    """

    documents: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    logs: tuple[tuple[float, ...], ...]

    def to_document(self) -> dict[str, Any]:
        """The stored form; log-probabilities as decimal strings."""
        return {
            "documents": list(self.documents),
            "tokens": [list(row) for row in self.tokens],
            "logs": [[f"{value:.5f}" for value in row] for row in self.logs],
        }


def distributions_from(document: Mapping[str, Any]) -> Distributions | None:
    """Stored distributions, or None if the document is none."""
    try:
        found = Distributions(
            documents=tuple(int(d) for d in document["documents"]),
            tokens=tuple(tuple(int(t) for t in row) for row in document["tokens"]),
            logs=tuple(tuple(float(v) for v in row) for row in document["logs"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    shapes = [list(map(len, rows)) for rows in (found.tokens, found.logs)]
    is_whole = shapes[0] == shapes[1] and len(found.documents) == len(found.tokens)
    return found if is_whole and all(shapes[0]) else None


def sample_of(windows: Sequence[Window], most_tokens: int = SAMPLE_TOKENS) -> list[Window]:
    """The first windows that hold so many scored tokens together; at least one."""
    sample: list[Window] = []
    for window in windows:
        if sample and sum(w.scored_tokens for w in sample) + window.scored_tokens > most_tokens:
            break
        sample.append(window)
    return sample


def divergences(true: Distributions, other: Distributions) -> list[float]:
    """KL(true || other) at each position, in nats: at least so much.

    Raises:
        ValueError: They are not of the same positions.
    """
    if true.documents != other.documents:
        raise ValueError("distributions of unlike samples have no divergence")
    rows = zip(true.tokens, true.logs, other.tokens, other.logs, strict=True)
    return [_divergence(dict(zip(t, p, strict=True)), dict(zip(o, q, strict=True)))
            for t, p, o, q in rows]  # fmt: skip


def _divergence(true: Mapping[int, float], other: Mapping[int, float]) -> float:
    common = true.keys() & other.keys()
    parts = [(math.exp(true[token]), math.exp(other[token])) for token in common]
    only_true = math.fsum(math.exp(true[token]) for token in true.keys() - common)
    rest = max(SMALLEST_REST, 1.0 - only_true - math.fsum(p for p, _ in parts))
    other_rest = max(SMALLEST_REST, 1.0 - math.fsum(q for _, q in parts))
    if only_true:
        # What `other` gives them is unknown, but each at most what its least likely kept token has:
        # of what it may be, take what is least apart.
        most = len(true.keys() - common) * math.exp(min(other.values()))
        given = max(SMALLEST_REST, min(most, other_rest * only_true / (only_true + rest)))
        parts.append((only_true, given))
        other_rest = max(SMALLEST_REST, other_rest - given)
    parts.append((rest, other_rest))
    return max(0.0, math.fsum(p * math.log(p / q) for p, q in parts if p > 0))


def agreement_rows(looked: Mapping[str, Mapping[str, Any]]) -> Measurements:
    """Mean divergence a token, in nats, and the share of positions with the same likeliest token.

    Args:
        looked: The kept documents by condition, all over the same sample of the task's set.
    """
    found = {c: distributions_from(document) for c, document in looked.items()}
    by_condition = {c: d for c, d in found.items() if d}
    rows: Measurements = {}
    for condition, against in PAIRS:
        if not {condition, against} <= by_condition.keys():
            continue
        true, other = by_condition[against], by_condition[condition]
        apart = divergences(true, other)
        agree = [float(t[0] == o[0]) for t, o in zip(true.tokens, other.tokens, strict=True)]
        for metric, values in ((DIVERGENCE, apart), (TOP_TOKEN_AGREEMENT, agree)):
            if row := _mean(true.documents, values):
                rows[comparison(metric, condition, against)] = row
    return rows


def _mean(documents: Iterable[int], values: Sequence[float]) -> dict[str, str] | None:
    """The mean over positions; documents are what was drawn."""
    sums: dict[int, list[float]] = {}
    for document, value in zip(documents, values, strict=True):
        sums.setdefault(document, []).append(value)
    tokens = [float(len(found)) for found in sums.values()]
    mean = ratio_of_sums([math.fsum(found) for found in sums.values()], tokens)
    return over_documents(mean.value, mean.bounds, len(sums), effective_documents(tokens))


def distributions_look(evaluation_set: EvaluationSet) -> Look:
    """Ask every model what it would say next in a sample of the set."""
    sample = sample_of(evaluation_set.windows)
    documents = tuple(w.document for w in sample for _ in range(w.scored_tokens))

    def ask(model: Any) -> dict[str, Any]:
        from lora_jobs.evaluating.nll import likely_tokens

        tokens, logs = likely_tokens(model, sample, TOKENS_KEPT)
        return Distributions(
            documents, tuple(map(tuple, tokens)), tuple(map(tuple, logs))
        ).to_document()

    key = {**evaluation_set.key, "kept": TOKENS_KEPT, "sample": SAMPLE_TOKENS}
    return Look(DISTRIBUTIONS, key, ask)
