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
from lora_jobs.weightfiles import TensorEntry

MERGEABLE_DTYPES = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class Task:
    """One tensor of the output: the base's, with an update or as it is."""

    tensor: TensorEntry
    target: LoraTarget | None


def plan_merge(base: Mapping[str, TensorEntry], adapter: Adapter) -> dict[Path, list[Task]]:
    """Tasks of each file of the base, in the order in which its bytes lie.

    Raises:
        Refused: The adapter changes what the base does not have, in another shape, or in a dtype
            that cannot be added to.
    """
    for name, target in adapter.targets.items():
        _check(base, name, target, adapter.base_name)
    files: dict[Path, list[Task]] = {}
    for tensor in sorted(base.values(), key=lambda t: (t.file, t.offset)):
        files.setdefault(tensor.file, []).append(Task(tensor, adapter.targets.get(tensor.name)))
    for file, tasks in files.items():
        _check_contiguous(file, tasks)
    return files


def _check(base: Mapping[str, TensorEntry], name: str, target: LoraTarget, trained_on: str) -> None:
    hint = f"; the adapter says it was trained on {trained_on}" if trained_on else ""
    if target.module.rpartition(".")[2] in ("lm_head", "embed_tokens"):
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
        if tensor.dtype not in MERGEABLE_DTYPES:
            raise Refused(
                Reason.INVALID_INPUT,
                f"{tensor.name} is {tensor.dtype}; only {', '.join(MERGEABLE_DTYPES)} can be "
                "merged: name the 16-bit base model",
            )


def _check_contiguous(file: Path, tasks: list[Task]) -> None:
    """Streaming writes the bytes in order; holes and overlaps are no safetensors file."""
    end = tasks[0].tensor.offset
    for task in tasks:
        if task.tensor.offset != end:
            raise Refused(
                Reason.INVALID_INPUT,
                f"{file.name}: {task.tensor.name} does not begin where the tensor before it ends; "
                "the file is broken, upload it again",
            )
        end += task.tensor.size
