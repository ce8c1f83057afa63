"""Which tensor of the base is copied and which is merged, file by file. Pure.

The output has the base's files with the base's headers: same names, order, dtypes and offsets. So
the base's index stays true, and what was sharded stays sharded alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.adapter import Adapter, LoraTarget
from lora_jobs.merging.tensors import ITEM_BYTES
from lora_jobs.weightfiles import TensorEntry

_SHARED_LAYERS = ("lm_head", "embed_tokens")
"""Layers that may be one tensor (tied): an update of one would change the other."""


@dataclass(frozen=True)
class Task:
    """One tensor of the output: the base's, with an update or as it is."""

    tensor: TensorEntry
    target: LoraTarget | None


@dataclass(frozen=True)
class MergePlan:
    """All that is to be written.

    Attributes:
        files: Tasks of each file of the base, in the order in which the bytes lie.
    """

    files: Mapping[Path, tuple[Task, ...]]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(task.tensor.size for tasks in self.files.values() for task in tasks)

    @property
    def merged(self) -> int:
        """How many tensors change."""
        return sum(task.target is not None for tasks in self.files.values() for task in tasks)

    @property
    def copied(self) -> int:
        """How many stay as they are."""
        return sum(map(len, self.files.values())) - self.merged


def plan_merge(base: Mapping[str, TensorEntry], adapter: Adapter) -> MergePlan:
    """Match an adapter with the tensors of a base; every update has exactly one.

    Raises:
        Refused: The adapter changes what the base does not have, in another shape, or in a dtype
            that cannot be added to.
    """
    for name, target in adapter.targets.items():
        _check(base, name, target, adapter.trained_on)
    files: dict[Path, list[Task]] = {}
    for tensor in sorted(base.values(), key=lambda t: (t.file, t.offset)):
        files.setdefault(tensor.file, []).append(Task(tensor, adapter.targets.get(tensor.name)))
    return MergePlan({file: tuple(tasks) for file, tasks in files.items()})


def _check(base: Mapping[str, TensorEntry], name: str, target: LoraTarget, trained_on: str) -> None:
    hint = f"; the adapter says it was trained on {trained_on}" if trained_on else ""
    if target.module.rpartition(".")[2] in _SHARED_LAYERS:
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"the adapter changes {target.module}, which may share its weights with another "
            "layer; train it on the linear layers of the blocks",
        )
    weight = base.get(name)
    if weight is None:
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter changes {name}, which the base does not have{hint}; name that base",
        )
    wanted = (target.b.shape[0], target.a.shape[1])
    if weight.shape != wanted:
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"{name} is {list(weight.shape)} in the base, and {list(wanted)} in the adapter{hint};"
            " name that base",
        )
    for tensor in (weight, target.a, target.b):
        if tensor.dtype not in ITEM_BYTES:
            raise Refused(
                Reason.INVALID_INPUT,
                f"{tensor.name} is {tensor.dtype}; only {', '.join(ITEM_BYTES)} can be merged: "
                "name the 16-bit base model",
            )
