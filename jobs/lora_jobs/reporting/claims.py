"""The claims about merging as the report shows them, from the benchmark's raw record. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_api.gates import BASE, DYNAMIC, MERGED, OUTPUT_TOKENS_PER_SECOND, at_concurrency
from lora_api.report import Claim
from lora_jobs.benchmarking.metrics import speed_of
from lora_jobs.intervals.claims import MARGIN, Finding, as_fast, paired_ratio, slower
from lora_jobs.reporting.traces import trace_of


def claims_of(samples: Mapping[str, Any]) -> list[Claim]:
    """Both claims at the lowest concurrency; none where there is no record."""
    if not samples:
        return []
    concurrency = min(samples["workload"]["concurrency"])
    speeds = {
        name: _speeds(samples["processes"], name, concurrency) for name in (BASE, DYNAMIC, MERGED)
    }
    unmerged = slower(paired_ratio(speeds[DYNAMIC], speeds[BASE]))
    refused = samples["notApplicable"].get(DYNAMIC)
    if refused:
        unmerged = unmerged._replace(message=f"not applicable: {refused}"[:500])
    equal = as_fast(paired_ratio(speeds[MERGED], speeds[BASE]))
    metric = at_concurrency(OUTPUT_TOKENS_PER_SECOND, concurrency)
    statement = f"the merged model is as fast as the base, within {MARGIN:.0%}"
    return [
        _claim("mergedIsAsFast", statement, metric, equal),
        _claim("unmergedIsSlower", "the unmerged adapter slows the base down", metric, unmerged),
    ]


def _speeds(
    processes: Sequence[Mapping[str, Any]], condition: str, concurrency: int
) -> dict[int, float]:
    """Output tokens per second by block, of valid loops."""
    found = {}
    for process in processes:
        loop = process["loops"].get(str(concurrency))
        is_valid = str(concurrency) not in process["invalid"] and not process.get("again")
        if process["condition"] == condition and loop and is_valid:
            found[process["block"]] = speed_of(list(map(trace_of, loop))).output_tokens_per_second
    return found


def _claim(name: Any, statement: str, metric: str, finding: Finding) -> Claim:
    ratio = finding.ratio
    bounds = ratio.bounds if ratio else None
    return Claim(
        name=name,
        statement=statement,
        metric=metric,
        verdict=finding.verdict.value,
        change=f"{ratio.ratio - 1:+.1%}" if ratio else "",
        interval=f"[{bounds[0] - 1:+.1%}, {bounds[1] - 1:+.1%}]" if bounds else "",
        blocks=ratio.blocks if ratio else 0,
        message=finding.message,
    )
