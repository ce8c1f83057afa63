"""The streaming merge: base + scaling * B @ A, row block by row block, on CPU, without torch.

`adapter` reads what the adapter changes (`variants` refuses what is no plain LoRA), `plan` matches
it with the base's tensors, `companions` chooses the files that travel along; `blocks` makes the
output's bytes with the arithmetic of `tensors`, `hashedfile` writes and hashes them, `write` runs
it all. What is not understood is refused by name: a merge that silently drops a key serves the
base model under the adapter's name.
"""

import os

# Blocks are small and two other threads hash and write: OpenBLAS's own threads, one for each core
# of the node, would only wait for each other. It reads this once, when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from lora_jobs.merging.report import MergeReport
from lora_jobs.merging.write import merge_adapter

__all__ = ["MergeReport", "merge_adapter"]
