"""One run of a load tool, in our definitions, and how its JSON is read.

What a tool defines otherwise is converted or left out, never taken for ours: each module says which
of its fields is what.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused


@dataclass(frozen=True)
class LoadRun:
    """A closed loop against one engine process.

    Attributes:
        tool: Name and version, where it says one.
        concurrency: None where the file does not say.
        requests: Answered well.
        failed: Not answered, or cut off.
        input_tokens: Mean of a request.
        output_tokens: Mean of a request.
        time_to_first_token_ms: Median over requests.
        time_per_output_token_ms: Median over requests of (latency - TTFT) / (n - 1).
        output_tokens_per_second: Of all clients together.
    """

    tool: str
    concurrency: int | None
    requests: int
    failed: int
    input_tokens: float
    output_tokens: float
    time_to_first_token_ms: float
    time_per_output_token_ms: float
    output_tokens_per_second: float


class Document:
    """A tool's JSON, read by paths, with the path in every complaint."""

    def __init__(self, name: str, root: Mapping[str, Any]) -> None:
        self.name, self.root = name, root

    def find(self, *path: str | int) -> Any:
        """What is there; None where a part of the path is missing."""
        node: Any = self.root
        for key in path:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return None
        return node

    def number(self, *path: str | int) -> float:
        """A finite number that is not negative.

        Raises:
            Refused: There is none.
        """
        found = self.find(*path)
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        if not is_number or not math.isfinite(found) or found < 0:
            where = ".".join(map(str, path))
            raise Refused(Reason.INVALID_INPUT, f"{self.name}: {where} is {found!r}, no number")
        return float(found)

    def count(self, *path: str | int) -> int:
        """As `number`, 0 where nothing is there."""
        return 0 if self.find(*path) is None else int(self.number(*path))

    def refuse(self, why: str) -> Refused:
        """What to raise when the run is no measurement."""
        return Refused(Reason.INVALID_INPUT, f"{self.name}: {why}")
