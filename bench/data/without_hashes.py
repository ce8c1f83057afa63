"""The same merge with nothing hashed: what the arithmetic and the disk take alone."""

import sys
from pathlib import Path
from typing import Any

from lora_jobs.merging import merge_adapter
from lora_jobs.store.hashing import Hashes


def take(_: Hashes, block: Any) -> None:
    """Look at nothing."""


Hashes.add = take  # type: ignore[assignment, method-assign]
base, adapter, output = map(Path, sys.argv[1:])
merge_adapter(base, adapter, output, lambda _: None)
