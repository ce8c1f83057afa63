"""How speed was measured, from the benchmark's raw record. Pure.

The record is `lora_jobs.benchmarking.results.samples_of`: blocks, arrivals, environment, commands.
"""

from collections.abc import Mapping
from typing import Any

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


def speed_section(samples: Mapping[str, Any]) -> dict[str, Any]:
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
        "intervals": [_interval(key, found) for key, found in samples["intervals"].items()],
        "missing": samples["notApplicable"] | _invalid(processes),
        "commands": {p["condition"]: " ".join(p["argv"]) for p in processes},
        "repeatableAnswers": len(samples["expectations"].get("prompts", [])),
    }


def _interval(metric: str, found: Mapping[str, Any]) -> dict[str, str]:
    ratio = float(found["ratio"])
    low = high = ""
    if "halfWidth" in found:
        widening = 1 + float(found["halfWidth"])
        low, high = _signed(ratio / widening), _signed(ratio * widening)
    return {
        "metric": metric,
        "change": _signed(ratio),
        "interval": f"[{low}, {high}]" if low else "none: one block",
        "blocks": str(found["blocks"]),
    }


def _signed(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f}%"


def _invalid(processes: list[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"{p['condition']} at concurrency {concurrency}": reason
        for p in processes
        for concurrency, reason in p["invalid"].items()
    }
