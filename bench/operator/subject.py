"""The operator that is measured: a process of its own, asked through its metrics."""

import math
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from operator_process import IMAGES, OperatorEndpoints

WRITES = {"create", "apply", "patch", "replace", "update", "delete"}
Samples = list[tuple[str, dict[str, str], float]]


class Subject:
    """`python -m lora_operator` for the whole cluster.

    Args:
        kubeconfig: Of an administrator.
        folder: For its log.
        resync_seconds: Longest time between two looks at an object.
        settings: Further ones, without `LORA_OPERATOR_`.
    """

    def __init__(
        self, kubeconfig: Path, folder: Path, resync_seconds: float, **settings: str
    ) -> None:
        settings = IMAGES | {"RESYNC_SECONDS": str(resync_seconds)} | settings
        log = folder / "operator.log"
        self._operator = OperatorEndpoints(kubeconfig, log, settings, patience_seconds=60)

    def start(self) -> float:
        """Seconds until it answers liveness probes."""
        began = time.monotonic()
        self._operator.start()
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL."""
        self._operator.process.kill()

    def stop(self) -> float:
        """SIGTERM; seconds until it is gone."""
        began = time.monotonic()
        self._operator.process.stop(grace=20)
        return time.monotonic() - began

    @property
    def metrics_port(self) -> int:
        """Where it answers scrapes."""
        return self._operator.metrics_port

    def samples(self) -> Samples:
        """All metrics, as they are now."""
        families = text_string_to_metric_families(self._operator.scrape())
        return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def value(samples: Samples, name: str) -> float:
    """Of a metric without labels."""
    return next(v for n, _, v in samples if n == name)


def writes(samples: Samples) -> float:
    """Calls that change something, whatever the answer was."""
    calls = (
        (labels, v) for name, labels, v in samples if name == "lora_operator_api_requests_total"
    )
    return sum(v for labels, v in calls if labels["verb"].lower() in WRITES)


def calls(samples: Samples) -> dict[tuple[str, str, str], float]:
    """Number of calls by verb, resource and code."""
    return {
        (labels["verb"], labels["resource"], labels["code"]): v
        for name, labels, v in samples
        if name == "lora_operator_api_requests_total"
    }


def quantile(before: Samples, after: Samples, histogram: str, q: float) -> float:
    """Upper bound of the bucket that holds the quantile of what was observed in between."""

    def buckets(samples: Samples) -> dict[float, float]:
        return {
            float(labels["le"]): v for name, labels, v in samples if name == f"{histogram}_bucket"
        }

    old = buckets(before)
    counts = {bound: v - old.get(bound, 0.0) for bound, v in buckets(after).items()}
    total = counts[math.inf]
    return min(bound for bound, count in counts.items() if count >= q * total)
