"""A real Prometheus that scrapes an operator, and the panels of the dashboard to ask it for."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from chart import CHART
from localcluster import debian
from localcluster.console import wait_until

Json = dict[str, Any]
DASHBOARD: Json = json.loads((CHART / "dashboards/lora-operator.json").read_text())
EXPRESSIONS: list[str] = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]


def filled(expression: str, rate_interval: str, shown: str) -> str:
    """A query as Grafana sends it, with its variables filled in; all namespaces."""
    variables = {"$__rate_interval": rate_interval, "$__range": shown, "$namespace": ".*"}
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    return expression


@dataclass(frozen=True)
class Prometheus:
    """The API of a running one."""

    port: int

    def query(self, expression: str, time: float | None = None) -> list[Json]:
        """What an instant query finds; an expression that does not parse is an error."""
        asked: dict[str, str | float] = {"query": expression}
        if time is not None:
            asked["time"] = time
        return self._ask("query", asked)

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Json]:
        """What a range query finds, each series with its `values`."""
        asked: dict[str, str | float] = {"query": expression, "start": start, "end": end}
        return self._ask("query_range", asked | {"step": step})

    def has_scraped(self) -> bool:
        """Whether an operator was scraped three times within a minute."""
        try:
            return bool(self.query("count_over_time(lora_operator_build_info[1m]) >= 3"))
        except httpx.TransportError:
            return False  # it starts
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return False  # it reads its own files
            raise

    def _ask(self, what: str, parameters: Mapping[str, str | float]) -> list[Json]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}"
        answer = httpx.get(url, params=dict(parameters), timeout=30)
        answer.raise_for_status()
        found: list[Json] = answer.json()["data"]["result"]
        return found


@contextmanager
def scraping(
    folder: Path, port: int, target: int, interval_seconds: int = 1
) -> Iterator[Prometheus]:
    """Run it on `port`, scraping the operator at `target`, until the end of the block."""
    scraped = {"targets": [f"127.0.0.1:{target}"], "labels": {"pod": "operator"}}
    job = {"job_name": "lora-operator", "honor_labels": True, "static_configs": [scraped]}
    config = {"global": {"scrape_interval": f"{interval_seconds}s"}, "scrape_configs": [job]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(debian.program(debian.PROMETHEUS, "prometheus")),
             f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'db'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        prometheus = Prometheus(port)
        wait_until("three scrapes", prometheus.has_scraped, seconds=120)
        yield prometheus
    finally:
        process.terminate()
        process.wait(60)
