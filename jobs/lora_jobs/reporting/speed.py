"""How speed was measured, from the benchmark's raw record. Pure.

The record is `lora_jobs.benchmarking.results.samples_of`: blocks, arrivals, environment, commands.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from lora_api.estimates import estimate
from lora_api.gates import (
    BASE,
    CONDITIONS,
    MERGED,
    QUANTIZED,
    Measurements,
    change_of,
    interval_text,
)
from lora_api.report import Comparison, Distribution, Fact, ProcessState, SpeedRecord
from lora_jobs.benchmarking.metrics import RequestTrace, percentile
from lora_jobs.reporting.claims import claims_of
from lora_jobs.reporting.openloop import open_loop_record
from lora_jobs.reporting.traces import trace_of

AGAIN = f"{BASE}/{BASE}"
NO_INTERVAL = "none: one block"
_FACTS = {
    "device": "device",
    "cpu": "processor",
    "cores": "cores",
    "memory": "main memory",
    "accelerators": "accelerators",
    "loadBefore": "load before (1, 5, 15 min)",
    "engine": "engine",
    "torch": "torch",
    "kernel": "kernel",
}


def environment_facts(samples: Mapping[str, Any]) -> list[Fact]:
    """On what speed was measured."""
    known = samples.get("environment", {})
    return [Fact(name=said, text=known[key]) for key, said in _FACTS.items() if key in known]


def speed_record(samples: Mapping[str, Any], measurements: Measurements) -> SpeedRecord | None:
    """What the report says of the measurement; None when there was none."""
    if not samples:
        return None
    processes, workload = samples["processes"], samples["workload"]
    facts = {
        "input tokens": workload["inputTokens"],
        "output tokens": workload["outputTokens"],
        "concurrency": ", ".join(map(str, workload["concurrency"])),
        "precision asked": workload["precision"],
    }
    missing = samples["notApplicable"] | _invalid(processes)
    commands = {p["condition"]: " ".join(p["argv"]) for p in processes}
    return SpeedRecord(
        processes=len(processes),
        blocks=len({p["block"] for p in processes}),
        workload=_listed(facts),
        prompts=samples["prompts"],
        comparisons=list(_comparisons(measurements)),
        distributions=list(_distributions(processes)),
        missing=_listed(missing),
        commands=_listed(commands),
        repeatable_answers=len(samples["expectations"].get("prompts", [])),
        open_loop=open_loop_record(samples.get("openLoop")),
        claims=claims_of(samples),
        states=[ProcessState.model_validate(state) for state in samples.get("states", ())],
    )


def _listed(facts: Mapping[str, object]) -> list[Fact]:
    return [Fact(name=name, text=str(text)) for name, text in facts.items()]


def _comparisons(measurements: Measurements) -> Iterator[Comparison]:
    """Every timing metric, what would serve against base and base against itself."""
    for key in measurements:
        metric, _, pair = key.partition(":")
        if "@" not in metric or pair not in (f"{QUANTIZED}/{BASE}", f"{MERGED}/{BASE}", AGAIN):
            continue
        seen = estimate(measurements, key)
        condition, _, against = pair.partition("/")
        yield Comparison(
            metric=metric,
            condition=condition,
            against=against,
            change=change_of(seen.value),
            interval=interval_text(seen) or NO_INTERVAL,
            blocks=seen.blocks,
            ratio=float(seen.value),
            lower=None if seen.lower is None else float(seen.lower),
            upper=None if seen.upper is None else float(seen.upper),
        )


def _distributions(processes: list[Mapping[str, Any]]) -> Iterator[Distribution]:
    """TTFT and TPOT of all requests of valid loops, by condition and concurrency."""
    loops: dict[tuple[str, int], list[RequestTrace]] = {}
    for process in processes:
        for concurrency, traces in process["loops"].items():
            if concurrency not in process["invalid"] and not process.get("again"):
                place = loops.setdefault((process["condition"], int(concurrency)), [])
                place.extend(map(trace_of, traces))
    for condition in CONDITIONS:
        for name, concurrency in sorted(loops):
            if name != condition:
                continue
            traces = loops[name, concurrency]
            first = [t.time_to_first_token_ms for t in traces]
            each = [v for t in traces if (v := t.time_per_output_token_ms) is not None]
            yield _distribution(condition, concurrency, "TimeToFirstToken", first)
            if each:
                yield _distribution(condition, concurrency, "TimePerOutputToken", each)


def _distribution(
    condition: str,
    concurrency: int,
    metric: Literal["TimeToFirstToken", "TimePerOutputToken"],
    values_ms: list[float],
) -> Distribution:
    return Distribution(
        condition=condition,
        concurrency=concurrency,
        metric=metric,
        requests=len(values_ms),
        percentiles_ms=[round(percentile(values_ms, p), 3) for p in range(101)],
    )


def _invalid(processes: list[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"{p['condition']} at concurrency {concurrency}": reason
        for p in processes
        for concurrency, reason in p["invalid"].items()
    }
