"""The headers of the output's files. Format: see `lora_jobs.weightfiles`."""

import json
from pathlib import Path

from lora_jobs.merging.matrices import read_exactly
from lora_jobs.merging.plan import Task

_ALIGNMENT = 8
"""The safetensors library pads a header with spaces, so that the data begins on such a boundary."""


def header_of(source: Path, tasks: tuple[Task, ...]) -> bytes:
    """All bytes before the data: the base's own where every tensor keeps name, shape and place.

    Args:
        source: The base's file.
        tasks: Its tensors in the order in which they are written.
    """
    with source.open("rb") as file:
        length = int.from_bytes(read_exactly(file, 0, 8), "little")
        own = read_exactly(file, 8, length)
    if all(task.name == task.before.name and task.shape == task.before.shape for task in tasks):
        return length.to_bytes(8, "little") + own
    metadata = json.loads(own).get("__metadata__")
    document = {"__metadata__": metadata} if metadata is not None else {}
    end = 0
    for task in tasks:
        offsets = [end, end := end + task.size]
        document[task.name] = {
            "dtype": task.dtype, "shape": list(task.shape), "data_offsets": offsets,
        }  # fmt: skip
    header = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header
