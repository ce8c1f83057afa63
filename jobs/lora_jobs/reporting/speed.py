"""How speed was measured, from the benchmark's raw record. Pure.

The record is `lora_jobs.benchmarking.results.samples_of`: blocks, arrivals, environment, commands.
"""

from collections.abc import Mapping
from typing import Any

from lora_api.estimates import estimate
from lora_api.gates import BASE, QUANTIZED, Measurements, change_of, interval_text

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


def speed_section(samples: Mapping[str, Any], measurements: Measurements) -> dict[str, Any]:
    """What the report says of the measurement; empty when there was none."""
    if not samples:
        return {}
    processes = samples["processes"]
    environment = samples["environment"]
    workload = samples["workload"]
    return {
        "facts": {said: environment[key] for key, said in _FACTS.items() if key in environment},
        "workload": {
            "input tokens": workload["inputTokens"],
            "output tokens": workload["outputTokens"],
            "concurrency": ", ".join(map(str, workload["concurrency"])),
            "precision asked": workload["precision"],
        },
        "blocks": len({p["block"] for p in processes}),
        "processes": len(processes),
        "prompts": samples["prompts"],
        "intervals": _intervals(measurements),
        "missing": samples["notApplicable"] | _invalid(processes),
        "commands": {p["condition"]: " ".join(p["argv"]) for p in processes},
        "repeatableAnswers": len(samples["expectations"].get("prompts", [])),
    }


def _intervals(measurements: Measurements) -> list[dict[str, str]]:
    """Every timing metric, quantized against base."""
    found = []
    for key in measurements:
        metric, _, pair = key.partition(":")
        if pair == f"{QUANTIZED}/{BASE}" and "@" in metric:
            ratio = estimate(measurements, key)
            found.append(
                {
                    "metric": metric,
                    "change": change_of(ratio.value),
                    "interval": interval_text(ratio) or "none: one block",
                    "blocks": str(ratio.blocks),
                }
            )
    return found


def _invalid(processes: list[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"{p['condition']} at concurrency {concurrency}": reason
        for p in processes
        for concurrency, reason in p["invalid"].items()
    }
