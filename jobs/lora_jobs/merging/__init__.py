"""The streaming merge: base + scaling * B @ A, row block by row block, on CPU, without torch.

`adapter` reads what the adapter changes, `plan` matches it with the base's tensors, `tensors` does
the arithmetic, `write` streams the files. What is not understood is refused by name: a merge
that silently drops a key serves the base model under the adapter's name.
"""

from lora_jobs.merging.write import MergeReport, merge_adapter

__all__ = ["MergeReport", "merge_adapter"]
