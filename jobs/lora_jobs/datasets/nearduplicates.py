"""Near-duplicates: a record of one set that stands, nearly word for word, in one of another. Pure.

A record is the set of its runs of `RUN_WORDS` words, with case, punctuation and white space
folded. What is asked is how many of its runs one other record holds (containment, Broder 1997:
|A and B| / |A|), not how alike the two are: a text that was seen inside of a longer one was seen.
Runs of five words and a share of 0.8 are those of Lee et al. 2022 (arXiv:2107.06499), who ask it of
|A and B| / |A or B|, which is never more. It is counted exactly, no sketch, so no answer hangs on a
seed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

RUN_WORDS = 5
SHARE = 0.8
MIN_RUNS = 8
"""A record with fewer runs is too short to tell a copy from a common phrase."""

RECORDS_AT_ONCE = 256
"""Bounds the table of counts, which has a cell a pair of records that share a run."""

# Scripts without spaces have no words to find: each character is one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def near_duplicates(known: Sequence[str], asked: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """Every text of `asked` that some text of `known` nearly holds, in order.

    Runs that more than half of `asked` share (and more than two) are a template's and not counted.

    Args:
        known: Texts that were seen.
        asked: Texts that should be new.

    Yields:
        Its index in `asked`; the index in `known` of the first that holds most of it; the share of
        its runs that this one holds, `SHARE` to 1.
    """
    runs = [_runs(text) for text in asked]
    common = {run for run, n in Counter(chain.from_iterable(runs)).items() if n > _most(len(asked))}
    runs = [found - common for found in runs]
    sizes = np.array([len(found) for found in runs])
    columns = {run: i for i, run in enumerate(set().union(*runs))}
    if not columns or not known:
        return
    table = _table(runs, columns)
    best: NDArray[np.int64] = np.zeros(len(asked), np.int64)
    holder: NDArray[np.int64] = np.zeros(len(asked), np.int64)
    for start in range(0, len(known), RECORDS_AT_ONCE):
        block = known[start : start + RECORDS_AT_ONCE]
        held = (table @ _table([_runs(text) for text in block], columns).T).toarray()
        most = held.max(axis=1)
        holder = np.where(most > best, start + held.argmax(axis=1), holder)
        best = np.maximum(best, most)
    for at in np.flatnonzero((sizes >= MIN_RUNS) & (best >= SHARE * sizes)):
        yield int(at), int(holder[at]), float(best[at] / sizes[at])


def _most(count: int) -> float:
    return max(2, count / 2)


def _runs(text: str) -> set[str]:
    words = _WORD.findall(text.casefold())
    return {" ".join(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)}


def _table(runs: Sequence[set[str]], columns: dict[str, int]) -> sparse.csr_array:
    """A row a record, a column a run: 1 where the record holds it."""
    found = [[columns[run] for run in row if run in columns] for row in runs]
    indices = np.fromiter(chain.from_iterable(found), np.int64)
    starts = np.cumsum([0, *map(len, found)])
    ones = np.ones(len(indices), np.int64)
    return sparse.csr_array((ones, indices, starts), shape=(len(runs), len(columns)))
