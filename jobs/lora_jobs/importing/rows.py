"""Runs of load tools as the rows that gates and reports read. A run is one block."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_api.estimates import comparison
from lora_api.gates import (
    BASE,
    OUTPUT_TOKENS_PER_SECOND,
    QUANTIZED,
    TPOT_P50,
    TTFT_P50,
    Measurements,
    at_concurrency,
)
from lora_api.jobcontract import Reason
from lora_jobs.benchmarking.metrics import decimal_text, geometric_mean
from lora_jobs.errors import Refused
from lora_jobs.importing import aiperf, guidellm, vllm
from lora_jobs.importing.loadrun import Document, LoadRun
from lora_jobs.intervals.blocks import block_ratio
from lora_jobs.intervals.rows import over_blocks

READERS = (vllm, aiperf, guidellm)
MAX_LENGTH_DIFFERENCE = 0.01
"""Of mean input and output lengths; unequal work has no ratio."""
Runs = Mapping[str, Sequence[LoadRun]]


def read_run(file: Path) -> LoadRun:
    """The run in a file of any of the tools.

    Raises:
        Refused: It is none of theirs, or no measurement.
    """
    try:
        root: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Refused(Reason.INVALID_INPUT, f"{file} is no JSON: {error}") from None
    document = Document(file.name, root if isinstance(root, dict) else {})
    reader = next((reader for reader in READERS if reader.is_mine(document)), None)
    if reader is None:
        raise document.refuse("it is no result of vllm bench serve, aiperf or guidellm")
    run: LoadRun = reader.read(document)
    if run.failed or not run.requests:
        raise document.refuse(f"{run.failed} of {run.failed + run.requests} requests failed")
    numbers = (run.time_to_first_token_ms, run.time_per_output_token_ms,
               run.output_tokens_per_second, run.output_tokens)  # fmt: skip
    if min(numbers) <= 0:
        raise document.refuse("a time, a speed or a length is 0")
    return run


def rows_of(runs: Runs, concurrency: int | None) -> Measurements:
    """Rows by metric and condition, and quantized against base over the runs in their order.

    Args:
        runs: By condition; the first of each make block 1, and so on.
        concurrency: For files that do not say.

    Raises:
        Refused: The runs are unlike, or nobody says their concurrency.
    """
    at = _agreed(runs, concurrency)
    values = {
        TTFT_P50: {c: [r.time_to_first_token_ms for r in found] for c, found in runs.items()},
        TPOT_P50: {c: [r.time_per_output_token_ms for r in found] for c, found in runs.items()},
        OUTPUT_TOKENS_PER_SECOND: {
            c: [r.output_tokens_per_second for r in found] for c, found in runs.items()
        },
    }
    rows: Measurements = {}
    for metric, by_condition in values.items():
        key = at_concurrency(metric, at)
        rows[key] = {c: decimal_text(geometric_mean(v)) for c, v in by_condition.items() if v}
        pairs = list(zip(by_condition.get(QUANTIZED, ()), by_condition.get(BASE, ()), strict=False))
        if pairs:
            quantized, base = zip(*pairs, strict=True)
            if row := over_blocks(block_ratio(quantized, base)):
                rows[comparison(key, QUANTIZED, BASE)] = row
    return rows


def _agreed(runs: Runs, given: int | None) -> int:
    """The one concurrency of all runs, which must have done equal work."""
    every = [run for found in runs.values() for run in found]
    said = {run.concurrency for run in every if run.concurrency} | ({given} if given else set())
    if len(said) != 1:
        told = ", ".join(map(str, sorted(said))) or "nothing; give --concurrency"
        raise Refused(Reason.INVALID_INPUT, f"the runs must have one concurrency; they say {told}")
    for name, lengths in (
        ("input", [run.input_tokens for run in every]),
        ("output", [run.output_tokens for run in every]),
    ):
        if max(lengths) > (1 + MAX_LENGTH_DIFFERENCE) * min(lengths):
            raise Refused(
                Reason.INVALID_INPUT,
                f"mean {name} lengths reach from {min(lengths):.1f} to {max(lengths):.1f} tokens: "
                "runs of unequal work cannot be compared; fix the lengths (ignore_eos)",
            )
    return said.pop()
