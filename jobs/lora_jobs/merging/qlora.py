"""Which weights of a base stand in NF4 while QLoRA trains: all linear layers but the head. Pure.

That is what Transformers puts into 4 bits with bitsandbytes, whether an adapter targets a layer or
not. Where it is not sure what a layer was in training the merge is refused, for a wrong guess would
move weights that nobody trained against.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.changes import is_head
from lora_jobs.merging.nf4 import BLOCK
from lora_jobs.merging.orientation import is_conv1d_model
from lora_jobs.merging.plan import MergePlan, Task, is_embedding

_POSITIONS = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight")
_INSTEAD = "merge into the 16-bit weights: merge.baseWeights: Original"


def with_nf4_base(plan: MergePlan, config: Mapping[str, Any]) -> MergePlan:
    """The same merge into a base whose linear layers went through NF4.

    Raises:
        Refused: The base has layers of which it is not known how they are trained in 4 bits.
    """
    if is_conv1d_model(config):
        raise _refused("the base has Conv1D layers, whose blocks lie across its rows")
    return replace(
        plan,
        files={file: tuple(_marked(t) for t in tasks) for file, tasks in plan.files.items()},
    )


def _marked(task: Task) -> Task:
    """Marked, if it is a linear layer of the base's own."""
    if len(task.before.shape) > 2 or ".experts." in task.name:
        raise _refused(f"{task.name} belongs to experts, which are not always in 4 bits")
    is_matrix = len(task.before.shape) == 2 and task.name.endswith(".weight")
    is_other = is_embedding(task.name) or is_head(task.name) or task.name.endswith(_POSITIONS)
    if not is_matrix or is_other or task.source != task.before:
        return task
    if task.shape[1] % BLOCK:
        raise _refused(f"{task.name} has {task.shape[1]} columns, no multiple of {BLOCK}")
    return replace(task, is_nf4=True)


def _refused(why: str) -> Refused:
    return Refused(Reason.UNSUPPORTED_ADAPTER, f"{why}; {_INSTEAD}")
