"""The open loop as the report shows it, from the benchmark's raw record. Pure."""

from collections.abc import Mapping
from typing import Any

from lora_api.gates import CONDITIONS
from lora_api.report import Fact, OpenLoop, OpenLoopRow
from lora_jobs.benchmarking.metrics import RequestTrace
from lora_jobs.benchmarking.openloop import (
    QUANTILES,
    RATE_SHARE,
    TPOT_OBJECTIVE_MS,
    TTFT_OBJECTIVE_MS,
    good_per_second,
    good_share,
    quantile,
)
from lora_jobs.reporting.traces import trace_of

OBJECTIVES = (
    f"first token within {TTFT_OBJECTIVE_MS:.0f} ms of arrival, then at most "
    f"{TPOT_OBJECTIVE_MS:.0f} ms a token"
)


def open_loop_record(recorded: Mapping[str, Any] | None) -> OpenLoop | None:
    """What the report says of `openLoop` in the samples; None where there is no such record."""
    if recorded is None:
        return None
    if "processes" not in recorded:
        return OpenLoop(skipped=recorded["skipped"])
    by_name = {p["condition"]: p for p in recorded["processes"]}
    found = [by_name[name] for name in CONDITIONS if name in by_name]
    return OpenLoop(
        rate_per_second=float(recorded["ratePerSecond"]),
        rate_share=RATE_SHARE,
        concurrency=recorded["concurrency"],
        seconds=round(recorded["arrivalsMicroseconds"][-1] / 1e6, 3),
        objectives=OBJECTIVES,
        quantiles=list(QUANTILES),
        rows=[_row(p["condition"], p["served"]) for p in found if not p["invalid"]],
        missing=[Fact(name=p["condition"], text=p["invalid"]) for p in found if p["invalid"]],
    )


def _row(condition: str, documents: list[Mapping[str, Any] | None]) -> OpenLoopRow:
    served = [None if document is None else trace_of(document) for document in documents]
    done: list[RequestTrace] = [trace for trace in served if trace is not None]
    unfinished = len(served) - len(done)
    values = {
        "TimeToFirstToken": [t.time_to_first_token_ms for t in done],
        "TimePerOutputToken": [v for t in done if (v := t.time_per_output_token_ms) is not None],
        "RequestLatency": [t.latency_ms for t in done],
    }
    return OpenLoopRow(
        condition=condition,
        requests=len(served),
        unfinished=unfinished,
        quantiles_ms={
            metric: [_rounded(quantile(seen, unfinished, percent)) for percent in QUANTILES]
            for metric, seen in values.items()
        },
        good_per_second=round(good_per_second(served), 4),
        good_share=round(good_share(served), 4),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
