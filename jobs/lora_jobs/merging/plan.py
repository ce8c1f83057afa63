"""What becomes of every tensor of the base, file by file.

The output has the base's files: same names, order and dtypes. Where no tensor is added and none
changes its shape the header is the base's too; so the base's index stays true.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.adapter import TokenRows, same_values
from lora_jobs.merging.changes import BiasTerm, Change, Term, Weighted, collect_changes, is_head
from lora_jobs.merging.orientation import is_stored_transposed
from lora_jobs.merging.tensors import ITEM_BYTES
from lora_jobs.weightfiles import TensorEntry

Base = Mapping[str, TensorEntry]

_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in")
_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Task:
    """One tensor of the output: (source, with rows replaced) + terms, with DoRA's norms.

    Attributes:
        name: In the output.
        dtype: In the output.
        source: What is copied or added to: the base's tensor or the adapter's.
        before: What the base has in this place, to say what changed.
        terms: Added to it.
        biases: Added to it.
        rows: Take the place of some rows.
        is_transposed: The weight is stored as (in, out), as Conv1D and embeddings do.
        is_nf4: The source goes through NF4 before anything is added.
    """

    name: str
    dtype: str
    source: TensorEntry
    before: TensorEntry
    terms: tuple[Term, ...] = ()
    biases: tuple[BiasTerm, ...] = ()
    rows: TokenRows | None = None
    is_transposed: bool = False
    is_nf4: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the output, in which a vocabulary may be resized."""
        return self.source.shape

    @property
    def size(self) -> int:
        """Bytes in the output."""
        if self.is_copied:
            return self.source.size
        return self.source.size // ITEM_BYTES[self.source.dtype] * ITEM_BYTES[self.dtype]

    @property
    def magnitude(self) -> TensorEntry | None:
        """DoRA's norms; never in a sum of several terms."""
        return self.terms[0].target.magnitude if self.terms else None

    @property
    def is_copied(self) -> bool:
        """Whether it stays as it is."""
        changes = self.terms or self.biases or self.rows or self.is_nf4
        return not changes and self.source == self.before


@dataclass(frozen=True)
class MergePlan:
    """All that is to be written.

    Attributes:
        files: Tasks of each file of the base, in the order in which the bytes lie.
        untied: Name of the head that gets weights of its own; None where nothing is untied.
        vocabulary: The new number of rows of embedding and head; None where it stays.
    """

    files: Mapping[Path, tuple[Task, ...]]
    untied: str | None = None
    vocabulary: int | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Of all files."""
        return tuple(task for tasks in self.files.values() for task in tasks)

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(task.size for task in self.tasks)

    @property
    def parameters(self) -> int:
        """Values of all tensors."""
        return sum(math.prod(task.shape) for task in self.tasks)

    @property
    def merged(self) -> int:
        """How many tensors change."""
        return sum(not task.is_copied for task in self.tasks)

    @property
    def copied(self) -> int:
        """How many stay as they are."""
        return len(self.tasks) - self.merged


def is_embedding(name: str) -> bool:
    """Whether a tensor is the weight of a layer that looks tokens up, as far as names tell."""
    return name.removesuffix(".weight").endswith(_EMBEDDINGS)


def plan_merge(base: Base, adapters: Sequence[Weighted], config: Mapping[str, Any]) -> MergePlan:
    """Match adapters with the tensors of a base; every update has exactly one.

    Args:
        base: Its tensors by name.
        adapters: At least one.
        config: The base's config.json.

    Raises:
        Refused: An adapter changes what the base does not have, in another shape, or in a dtype
            that cannot be added to.
    """
    shared = _Shared.of(base, config)
    embedding = shared.embedding or ""
    changes = collect_changes(base, adapters, embedding if shared.is_tied else "")
    head = next(filter(is_head, changes), shared.head or _HEAD)
    untied = shared.is_tied and _share_no_more(base, changes, embedding, head)
    made: dict[str, Task] = {}
    for name, change in changes.items():
        if name == head and shared.is_tied:
            continue
        made[name] = _task(name, change, base.get(name), config)
    if untied:
        made[head] = _task(head, _head_change(changes, embedding, head), base[embedding], config)
    elif shared.is_tied and shared.head and embedding in made:
        made[shared.head] = replace(made[embedding], name=shared.head)
    _check_vocabulary(base, made, shared, head)
    files: dict[Path, list[Task]] = {}
    for tensor in sorted(base.values(), key=lambda t: (t.file, t.offset)):
        copied = Task(tensor.name, tensor.dtype, tensor, tensor)
        files.setdefault(tensor.file, []).append(made.get(tensor.name, copied))
    if untied and head not in base:
        files[base[embedding].file].append(made[head])
    old, new = base.get(embedding), made.get(embedding)
    is_resized = old is not None and new is not None and old.shape != new.shape
    return MergePlan(
        {file: tuple(tasks) for file, tasks in files.items()},
        untied=head if untied else None,
        vocabulary=new.shape[0] if is_resized and new else None,
    )


@dataclass(frozen=True)
class _Shared:
    """Embedding and head of a base, as far as they are known by name."""

    embedding: str | None
    head: str | None
    is_tied: bool

    @staticmethod
    def of(base: Base, config: Mapping[str, Any]) -> "_Shared":
        """Tied is what the files leave out, or hold twice where the config says it is tied."""
        ends = tuple(f"{name}.weight" for name in _EMBEDDINGS)
        embeddings = [n for n in base if n.endswith(ends) and len(base[n].shape) == 2]
        heads = [n for n in base if is_head(n)]
        embedding = embeddings[0] if len(embeddings) == 1 else None
        head = heads[0] if len(heads) == 1 else None
        text = config.get("text_config")
        said = config.get("tie_word_embeddings")
        if said is None and isinstance(text, dict):
            said = text.get("tie_word_embeddings")
        if embedding is None or (heads and head is None):
            return _Shared(embedding, head, False)
        if head is None:
            return _Shared(embedding, head, said is not False)
        return _Shared(embedding, head, said is True and same_values(base[embedding], base[head]))


def _share_no_more(base: Base, changes: Mapping[str, Change], embedding: str, head: str) -> bool:
    """Whether a tied head needs weights of its own, as it had in training.

    PEFT wraps each layer by itself: an update of one leaves the other alone. Only trainable tokens
    go to both, and a resized vocabulary may be saved with each.
    """
    one, other = changes.get(embedding, Change()), _head_change(changes, embedding, head)
    if one.terms or other.terms or not _are_same_rows(one, other):
        return True
    first = one.saved or one.under or base[embedding]
    second = other.saved or other.under or base[embedding]
    return first != second and not same_values(first, second)


def _are_same_rows(one: Change, other: Change) -> bool:
    if one.rows is None or other.rows is None:
        return one.rows is other.rows
    same_indices = one.rows.indices == other.rows.indices
    return same_indices and same_values(one.rows.rows, other.rows.rows)


def _head_change(changes: Mapping[str, Change], embedding: str, head: str) -> Change:
    """What a tied head becomes: what lies under the embedding is its own too."""
    one, own = changes.get(embedding, Change()), changes.get(head, Change())
    rows = own.rows or (one.rows if own.saved is None else None)
    return replace(own, under=own.under or one.under, rows=rows)


def _task(name: str, change: Change, before: TensorEntry | None, config: Mapping[str, Any]) -> Task:
    hint = f"; the adapter says it was trained on {change.trained_on}" if change.trained_on else ""
    if before is None:
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter changes {name}, which the base does not have{hint}; name that base",
        )
    source = change.saved or change.under or before
    for tensor in _tensors_of(change, before):
        if tensor.dtype not in ITEM_BYTES:
            raise Refused(
                Reason.INVALID_INPUT,
                f"{tensor.name} is {tensor.dtype}; only {', '.join(ITEM_BYTES)} can be merged: "
                "name the 16-bit base model",
            )
    is_vocabulary = is_head(name) or is_embedding(name)
    is_resized = is_vocabulary and source.shape[1:] == before.shape[1:]
    if source.shape != before.shape and not is_resized:
        raise _mismatch(name, before.shape, source.shape, hint)
    transposed = {is_stored_transposed(term, name, source.shape, config) for term in change.terms}
    if None in transposed or len(transposed) > 1:
        term = change.terms[0]
        raise _mismatch(name, source.shape, term.shape, hint)
    for bias in change.biases:
        if bias.vector.shape != source.shape:
            raise _mismatch(name, source.shape, bias.vector.shape, hint)
    _check_rows(name, change.rows, source.shape, hint)
    return Task(
        name, before.dtype, source, before, tuple(change.terms), tuple(change.biases), change.rows,
        is_transposed=bool(transposed and transposed.pop()),
    )  # fmt: skip


def _tensors_of(change: Change, before: TensorEntry) -> list[TensorEntry]:
    targets = [term.target for term in change.terms]
    optional = [change.saved, change.under, change.rows.rows if change.rows else None]
    optional += [target.magnitude for target in targets]
    matrices = [matrix for target in targets for matrix in (target.a, target.b)]
    vectors = [bias.vector for bias in change.biases]
    return [before, *matrices, *vectors, *(tensor for tensor in optional if tensor is not None)]


def _check_rows(name: str, rows: TokenRows | None, shape: tuple[int, ...], hint: str) -> None:
    if rows is None:
        return
    if rows.rows.shape != (len(rows.indices), *shape[1:]):
        raise _mismatch(name, shape, rows.rows.shape, hint)
    if max(rows.indices, default=0) >= shape[0]:
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter trains row {max(rows.indices)} of {name}, which has {shape[0]}{hint}; "
            "name that base",
        )


def _check_vocabulary(base: Base, made: Mapping[str, Task], shared: _Shared, head: str) -> None:
    """Embedding and head must have the same number of rows, as far as the names are known."""
    rows = {}
    for name in {shared.embedding or "", head}:
        tensor = made.get(name) or base.get(name)
        if tensor is not None:
            rows[name] = tensor.shape[0] if tensor.shape else 0
    if len(set(rows.values())) > 1:
        (one, first), (other, second) = sorted(rows.items())
        if all(n not in made or made[n].shape == base[n].shape for n in rows if n in base):
            return  # the base's own, as it was
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter resizes the vocabulary, but {one} has {first} rows and {other} {second}: "
            "save it with save_embedding_layers=True, so that both are there",
        )


def _mismatch(name: str, base: tuple[int, ...], adapter: tuple[int, ...], hint: str) -> Refused:
    return Refused(
        Reason.ADAPTER_MISMATCH,
        f"{name} is {list(base)} in the base, and {list(adapter)} in the adapter{hint}; name that "
        "base",
    )
