"""What was measured, as stored and as reported. Pure.

A score is one condition on one set, with the NLL of every window, and a key that says what went in.
Every comparison is arithmetic on stored scores, and only scores whose keys agree in all but the
model are compared: perplexities of unlike contexts, tokenizers or sets have no common meaning.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_api.digests import digest_of
from lora_api.gates import Measurements
from lora_jobs.evaluating.windows import Window

OWN_TOKENIZER = "ownTokenizer"
"""Name of the note that says that not all read the sets with one tokenizer, and of the mark."""
ANSWER_LENGTHS = "answerLengths"
"""Name of the note on answers of no fixed length."""
MODELS = "models"
"""The part of a key that may differ between scores that are compared."""

Key = dict[str, Any]


class UnlikeScores(Exception):
    """Scores were to be compared that do not measure the same thing."""


@dataclass(frozen=True)
class Score:
    """The NLL of one condition on one set, in nats, window by window.

    Attributes:
        condition: base, dynamic, merged or quantized.
        set_name: task or general.
        key: Digests of the models, of the set and of the windows, and the protocol.
        documents: For each window, the number of its document.
        tokens: For each window, how many tokens were scored.
        nlls: For each window, the summed NLL of those tokens, in nats.
        own_tokenizer: The model read the same text with a tokenizer of its own; a window is a whole
            document then, and its tokens are those of the models that it is compared with.
    """

    condition: str
    set_name: str
    key: Key
    documents: tuple[int, ...]
    tokens: tuple[int, ...]
    nlls: tuple[float, ...]
    own_tokenizer: bool = False

    @property
    def nll_per_token(self) -> float:
        """Mean NLL in nats: sum over all windows by the sum of their tokens."""
        return math.fsum(self.nlls) / sum(self.tokens)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean NLL per token; infinite where that overflows."""
        try:
            return math.exp(self.nll_per_token)
        except OverflowError:
            return math.inf

    @property
    def document_count(self) -> int:
        """How many documents have a scored token."""
        return len(set(self.documents))

    def to_document(self) -> dict[str, Any]:
        """The stored form; NLLs as decimal strings."""
        own = {OWN_TOKENIZER: True} if self.own_tokenizer else {}
        return own | {
            "condition": self.condition,
            "set": self.set_name,
            "key": self.key,
            "documents": list(self.documents),
            "tokens": list(self.tokens),
            "nlls": [f"{nll:.6f}" for nll in self.nlls],
        }


SCORES_SCHEMA = 1


def scores_document(scores: Iterable[Score]) -> dict[str, Any]:
    """All scores of an evaluation as they are kept for the report."""
    return {"schema": SCORES_SCHEMA, "scores": [score.to_document() for score in scores]}


def score_of(
    condition: str, set_name: str, key: Key, windows: Sequence[Window], nlls: Iterable[float]
) -> Score:
    """The score that a model's window NLLs make."""
    return Score(
        condition=condition,
        set_name=set_name,
        key=key,
        documents=tuple(w.document for w in windows),
        tokens=tuple(w.scored_tokens for w in windows),
        # Rounded as stored, so that a score that was read back is equal to the one that was made.
        nlls=tuple(float(f"{nll:.6f}") for nll in nlls),
    )


def score_of_equal_text(score: Score, told: Sequence[Window]) -> Score:
    """The score of a model that read the documents with its own tokenizer, for comparing.

    The loss of a document is one of its text, whatever its tokens. Over equal counts, those of the
    other models' tokens, two losses compare as they would per byte of the text.

    Args:
        score: Of the model's own windows.
        told: The windows of the other models.

    Raises:
        UnlikeScores: Other documents are scored.
    """
    documents = sorted({w.document for w in told})
    if documents != sorted(set(score.documents)):
        raise UnlikeScores("its tokenizer leaves nothing to score of other documents")
    tokens, nlls = dict.fromkeys(documents, 0), dict.fromkeys(documents, 0.0)
    for window in told:
        tokens[window.document] += window.scored_tokens
    for document, nll in zip(score.documents, score.nlls, strict=True):
        nlls[document] += nll
    return replace(
        score,
        documents=tuple(documents),
        tokens=tuple(tokens.values()),
        nlls=tuple(float(f"{nll:.6f}") for nll in nlls.values()),
        own_tokenizer=True,
    )


def score_from(
    document: Mapping[str, Any], condition: str, set_name: str, key: Key
) -> Score | None:
    """A stored score, or None if the document is no score of `key`.

    The names are the caller's: equal models on equal windows give equal numbers, whatever they
    were called when they were measured.
    """
    try:
        score = Score(
            condition=condition,
            set_name=set_name,
            key=dict(document["key"]),
            documents=tuple(int(d) for d in document["documents"]),
            tokens=tuple(int(t) for t in document["tokens"]),
            nlls=tuple(float(n) for n in document["nlls"]),
            own_tokenizer=bool(document.get(OWN_TOKENIZER, False)),
        )
    except (KeyError, TypeError, ValueError):
        return None
    lengths = {len(score.documents), len(score.tokens), len(score.nlls)}
    return score if score.key == key and len(lengths) == 1 and score.tokens else None


def entry_hash(key: Key) -> str:
    """The hash under which a score is stored."""
    return digest_of({"stage": "evaluate-condition", "stageVersion": 1, "key": key})


def measurements_of(scores: Iterable[Score], weights_bytes: Mapping[str, int]) -> Measurements:
    """Perplexity and mean NLL per token by set and condition, and weight bytes by condition.

    A value that is not finite is reported as it is: no gate passes it.

    Raises:
        UnlikeScores: Two scores of a set have keys that differ in more than the model.
    """
    measurements: Measurements = {}
    likeness: dict[str, Key] = {}
    for score in scores:
        protocol = {k: v for k, v in score.key.items() if k != MODELS}
        if likeness.setdefault(score.set_name, protocol) != protocol:
            raise UnlikeScores(
                f"{score.condition} on {score.set_name} was measured by another protocol: "
                f"{_difference(likeness[score.set_name], protocol)}"
            )
        nlls = measurements.setdefault(f"NegativeLogLikelihood/{score.set_name}", {})
        nlls[score.condition] = f"{score.nll_per_token:.6f}"
        perplexities = measurements.setdefault(f"Perplexity/{score.set_name}", {})
        perplexities[score.condition] = f"{score.perplexity:.6f}"
    if weights_bytes:
        measurements["WeightsBytes"] = {c: str(n) for c, n in weights_bytes.items()}
    return measurements


def _difference(one: Key, other: Key) -> str:
    names = sorted(one.keys() | other.keys())
    return ", ".join(
        f"{n} {one.get(n)} and {other.get(n)}" for n in names if one.get(n) != other.get(n)
    )
