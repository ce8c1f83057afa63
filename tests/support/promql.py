"""Prometheus' own programs, and which metrics the operator has."""

import re
import subprocess
from pathlib import Path

from prometheus_client import CollectorRegistry

from localcluster import debian

_OURS = re.compile(r"\b(lora_operator_[a-z_]+|process_[a-z_]+)\b")


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run promtool to its end."""
    program = debian.program(debian.PROMETHEUS, "promtool")
    return subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def named_metrics(expression: str) -> set[str]:
    """Metrics of the operator that a PromQL expression reads."""
    return set(_OURS.findall(expression))


def metric_names(registry: CollectorRegistry) -> set[str]:
    """Every name that a scrape of the registry can hold, those without a sample yet too."""
    suffixes = {
        "counter": ("_total",), "gauge": ("",), "info": ("_info",),
        "histogram": ("_bucket", "_count", "_sum"),
    }  # fmt: skip
    return {
        f"{family.name}{suffix}"
        for family in registry.collect()
        for suffix in suffixes[family.type]
    }
