"""The Grafana dashboard: each query finds data in what a real Prometheus has scraped.

Grafana itself is not here: how it draws the panels is not tested.
"""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from chart import CHART, MONITORED, of_kind, render
from counted_run import run_counted
from localcluster import debian
from localcluster.console import wait_until
from lora_api.jobcontract import Reason, StageFailure
from lora_api.status import Status
from lora_operator.metrics import Metrics, serve_metrics
from planning_world import World
from promql import metric_names, named_metrics

Json = dict[str, Any]
DASHBOARD: Json = json.loads((CHART / "dashboards/lora-operator.json").read_text())
VARIABLES = {"$__rate_interval": "1m", "$__range": "1m", "$namespace": ".*"}
EXPRESSIONS = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]


def lived() -> Metrics:
    """Metrics of an operator that has met one of everything."""
    metrics, world = Metrics(), World()
    world.reconcile()
    missing = StageFailure(failure=Reason.CREDENTIALS_MISSING, message="create it")
    before = Status.model_validate(world.status)
    world.end_stage("resolve", missing, exit_code=3)
    world.reconcile()
    metrics.wrote(before, Status.model_validate(world.status))
    metrics.saw("team", "waits", Status.model_validate(world.status))
    world = World()
    for _ in range(2):  # the second time the store has it all
        run_counted(metrics, world)
        metrics.saw("team", "serves", Status.model_validate(world.status))
        world.recreate()
    metrics.follow_queue(lambda: 2)
    metrics.waited(0.1)
    metrics.worked(0.2)
    metrics.retried(is_known=True)
    metrics.called("get", "jobs", 200, 0.01)
    metrics.watched("loradeployments")
    return metrics


class Prometheus:
    """The API of a running one."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def __call__(self, expression: str) -> list[Json]:
        """What an instant query finds; an expression that does not parse is an error."""
        answer = self._client.get("/api/v1/query", params={"query": expression})
        answer.raise_for_status()
        found: list[Json] = answer.json()["data"]["result"]
        return found

    def has_scraped(self) -> bool:
        try:
            return bool(self("count_over_time(lora_operator_build_info[1m]) >= 3"))
        except httpx.TransportError:
            return False  # it starts
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return False  # it reads its own files
            raise


def ask(port: int, folder: Path, target: int) -> dict[str, list[Json]]:
    """Let a real Prometheus scrape the target, and ask it every query of the dashboard."""
    scraped = {"targets": [f"127.0.0.1:{target}"], "labels": {"pod": "operator"}}
    job = {"job_name": "lora-operator", "honor_labels": True, "static_configs": [scraped]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
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
            return {expression: prometheus(filled(expression)) for expression in EXPRESSIONS}
        finally:
            process.terminate()
            process.wait(60)


def filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


async def test_every_query_finds_data_in_what_prometheus_scraped(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    metrics, port = lived(), unused_tcp_port_factory()
    lag = asyncio.create_task(metrics.follow_loop())
    runner = await serve_metrics(metrics, "127.0.0.1", port, "/metrics")
    try:
        found = await asyncio.to_thread(ask, unused_tcp_port_factory(), tmp_path, port)
    finally:
        lag.cancel()
        await runner.cleanup()
    assert [expression for expression, result in found.items() if not result] == []
    phases = {r["metric"]["phase"]: r["value"][1] for r in found[EXPRESSIONS[0]]}
    assert phases == {"Serving": "1", "Waiting": "1"}


def test_the_queries_read_only_metrics_that_the_operator_has() -> None:
    known = metric_names(Metrics().registry)
    for expression in EXPRESSIONS:
        read = named_metrics(expression)
        assert read, expression
        assert read <= known, expression


def test_the_config_map_holds_the_dashboard_for_the_sidecar() -> None:
    [found] = of_kind(render(MONITORED), "ConfigMap")
    assert json.loads(found["data"]["lora-operator.json"]) == DASHBOARD
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
