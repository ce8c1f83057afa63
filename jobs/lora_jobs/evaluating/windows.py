"""Documents cut into windows for scoring. Pure.

A window is at most `context_length` tokens of one document; none crosses into another. The first
token of a window is context only and is never scored: at the start of a document it is the BOS,
where the tokenizer adds one, else the document's first token, which nothing predicts. Every later
window starts with the last token of the one before, so that each other token of the document is
scored exactly once, and none is scored without any context.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lora_api.digests import digest_of
from lora_jobs.datasets.tokens import TokenizedRecord


class Window(NamedTuple):
    """Tokens of one document; `scored[i]` says whether the prediction of `token_ids[i]` counts."""

    document: int
    token_ids: tuple[int, ...]
    scored: tuple[bool, ...]

    @property
    def scored_tokens(self) -> int:
        """How many predictions count."""
        return sum(self.scored)


def cut_windows(documents: Iterable[TokenizedRecord], context_length: int) -> list[Window]:
    """All windows in which something is scored, in the order of the documents.

    Args:
        documents: Token ids and which of them count.
        context_length: Most tokens of a window, at least 2.
    """
    if context_length < 2:
        raise ValueError("a window needs a token of context and one to score")
    return [
        window
        for number, document in enumerate(documents)
        for window in _cut(number, document, context_length)
        if window.scored_tokens
    ]


def _cut(number: int, document: TokenizedRecord, context_length: int) -> Iterator[Window]:
    stride = context_length - 1
    for start in range(0, len(document.token_ids) - 1, stride):
        end = start + context_length
        counts = document.counts[start + 1 : end]
        yield Window(number, document.token_ids[start:end], (False, *counts))


def windows_digest(windows: Sequence[Window]) -> str:
    """Identity of what is scored: token ids, boundaries and mask. Equal digests are like numbers.

    It covers the set, the tokenizer, the BOS, the chat template, the context length and the mask,
    by what they come to.
    """
    return digest_of(
        [
            [window.document, list(window.token_ids), [int(s) for s in window.scored]]
            for window in windows
        ]
    )


def batches(windows: Sequence[Window], most_tokens: int) -> Iterator[list[int]]:
    """Indices of windows to be scored together: of like length, at most `most_tokens` padded.

    Deterministic, so that every condition sees the same batches; a window longer than
    `most_tokens` is a batch of its own.
    """
    order = sorted(range(len(windows)), key=lambda i: (-len(windows[i].token_ids), i))
    batch: list[int] = []
    for index in order:
        longest = len(windows[(batch or [index])[0]].token_ids)
        if batch and longest * (len(batch) + 1) > most_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
