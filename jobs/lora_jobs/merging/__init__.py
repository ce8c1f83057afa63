"""The streaming merge: base + scaling * B @ A, row block by row block, on CPU, without torch.

`adapter` reads what an adapter changes: its tensors by `keys`, how strongly by `scaling`, and
whether config and weights agree by `announced`; `variants` refuses what is not merged. `changes`
sums adapters, `plan` matches them with the base's tensors (`orientation`: which way round they are
stored; `qlora`: which go through `nf4` first), `companions` and `documents` choose and correct the
files that travel along; `blocks` makes the output's bytes from `updates` with the arithmetic of
`tensors`, `headers` and `hashedfile` write and hash them, `write` runs it all. What is not
understood is refused by name: a merge that silently drops a key serves the base model under the
adapter's name.
"""

import os

# Blocks are small and two other threads hash and write: OpenBLAS's own threads, one for each core
# of the node, would only wait for each other. It reads this once, when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from lora_jobs.merging.report import MergeReport
from lora_jobs.merging.write import merge_adapter, merge_adapters

__all__ = ["MergeReport", "merge_adapter", "merge_adapters"]
