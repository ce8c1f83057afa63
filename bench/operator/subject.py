"""The operator that is measured: a process of its own, asked through its metrics."""

import http.client
import math
import sys
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from localcluster.process import Process, free_ports
from operator_process import IMAGES

WRITES = {"create", "apply", "patch", "replace", "update", "delete"}
Samples = list[tuple[str, dict[str, str], float]]


class Subject:
    """`python -m lora_operator` for the whole cluster.

    Args:
        kubeconfig: Of an administrator.
        folder: For its log.
        resync_seconds: Longest time between two looks at an object.
    """

    def __init__(self, kubeconfig: Path, folder: Path, resync_seconds: float) -> None:
        self._health, self._metrics = free_ports(2)
        environment = {f"LORA_OPERATOR_{name}": image for name, image in IMAGES.items()}
        self._process = Process(
            "operator",
            [sys.executable, "-m", "lora_operator",
             "--health", f"http://127.0.0.1:{self._health}/healthz",
             "--metrics", f"http://127.0.0.1:{self._metrics}/metrics"],
            folder / "operator.log",
            env=environment | {
                "KUBECONFIG": str(kubeconfig),
                "LORA_OPERATOR_RESYNC_SECONDS": str(resync_seconds),
            },
        )  # fmt: skip

    def start(self) -> float:
        """Seconds until it answers liveness probes."""
        began = time.monotonic()
        self._process.start()
        self._process.wait_ready(self._is_alive)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def stop(self) -> float:
        """SIGTERM; seconds until it is gone."""
        began = time.monotonic()
        self._process.stop(grace=20)
        return time.monotonic() - began

    def samples(self) -> Samples:
        """All metrics, as they are now."""
        _, text = self._ask(self._metrics, "/metrics")
        families = text_string_to_metric_families(text)
        return [(s.name, s.labels, s.value) for family in families for s in family.samples]

    def _is_alive(self) -> bool:
        try:
            return self._ask(self._health, "/healthz")[0] == 200
        except OSError:
            return False

    def _ask(self, port: int, path: str) -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            link.request("GET", path)
            answer = link.getresponse()
            return answer.status, answer.read().decode()
        finally:
            link.close()


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
