"""The updates of one tensor as a product of two thin matrices, read block by block.

scaling * B @ A has the left factor B and the right factor A; of a weight that is stored as (in,
out), A^T and B^T. Several terms stand side by side: [B1 B2] @ [A1; A2] is their exact sum. A term
of a bias is a column, times one.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from lora_jobs.merging.addition import Addition
from lora_jobs.merging.changes import BiasTerm, Term
from lora_jobs.merging.matrices import read_columns, read_rows
from lora_jobs.merging.plan import Task
from lora_jobs.merging.tensors import Float64, Raw, squared_norm

_ReadLeft = Callable[[int, int], Float64]


class Added(NamedTuple):
    """Rounded sums, the sums of squares of what was added up, and how many weights stayed."""

    rounded: Raw
    weights_squared: float
    delta_squared: float
    unchanged: int


class Update:
    """All that is added to one tensor.

    Args:
        lefts: Read rows (first, count) of each scaled left factor, (count, r).
        right: All right factors below each other, (sum of r, columns).
    """

    def __init__(self, lefts: list[_ReadLeft], right: Float64) -> None:
        self._lefts = lefts
        self._right = right
        self._gram = right @ right.T
        self._addition = Addition(right)

    def rows(self, first: int, count: int) -> tuple[Float64, float]:
        """Rows of the update, (count, columns), and the sum of their squares."""
        left = self._left(first, count)
        return left @ self._right, squared_norm(left, self._gram)

    def add_to(self, raw: Raw, first: int, count: int, rounded: Raw) -> Added | None:
        """Bf16 weights + rows of the update, into `rounded`; None where it takes float64."""
        left = self._left(first, count)
        sums = self._addition.add(raw, left, rounded)
        if sums is None:
            return None
        delta_squared = squared_norm(left, self._gram)
        return Added(rounded, sums.weights_squared, delta_squared, sums.unchanged)

    def _left(self, first: int, count: int) -> Float64:
        return np.hstack([read(first, count) for read in self._lefts])


def open_update(task: Task, stack: ExitStack) -> Update | None:
    """Open the files of a task's terms, which `stack` closes; None where it has none."""
    factors = [_of_weight(term, task.is_transposed, stack) for term in task.terms]
    factors += [_of_bias(term, stack) for term in task.biases]
    if not factors:
        return None
    return Update([left for left, _ in factors], np.vstack([right for _, right in factors]))


def _of_weight(term: Term, is_transposed: bool, stack: ExitStack) -> tuple[_ReadLeft, Float64]:
    a, b = term.target.a, term.target.b
    file = stack.enter_context(a.file.open("rb"))
    part = term.part
    if part is not None:
        rank = a.shape[0] // part.experts
        right = read_rows(file, a, part.expert * rank, rank)

        def of_expert(first: int, count: int) -> Float64:
            rows = read_rows(file, b, part.first_row + first, count)
            return np.ascontiguousarray(rows[:, part.expert :: part.experts]) * term.scaling

        return of_expert, right
    if is_transposed:
        right = np.ascontiguousarray(read_rows(file, b, 0, b.shape[0]).T)
        return lambda first, count: read_columns(file, a, first, count) * term.scaling, right
    right = read_rows(file, a, 0, a.shape[0])
    return lambda first, count: read_rows(file, b, first, count) * term.scaling, right


def _of_bias(term: BiasTerm, stack: ExitStack) -> tuple[_ReadLeft, Float64]:
    file = stack.enter_context(term.vector.file.open("rb"))
    return lambda first, count: read_rows(file, term.vector, first, count) * term.scaling, np.ones(
        (1, 1)
    )
