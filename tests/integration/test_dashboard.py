"""The dashboard's queries find data in what a real Prometheus scraped of a real operator.

Grafana itself is not here: how it draws the panels is not tested.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builders import spec_document
from chart import chart_rules
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from lora_api import API_VERSION, KIND
from lora_api.jobcontract import Reason
from operator_process import grant
from operator_stage import NAME, OperatorStage
from prometheus import EXPRESSIONS, filled, scraping

pytestmark = pytest.mark.integration


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    with OperatorStage(control_plane, kubectl, tmp_path) as running:
        yield running


def meet_one_of_everything(stage: OperatorStage) -> None:
    """A denial, a whole run, results that are reused, and a second object that waits."""
    reading = {"verbs": ["get", "list", "watch"]}
    grant(stage.kubectl, [r | (reading if "jobs" in r["resources"] else {}) for r in chart_rules()])
    stage.apply()
    stage.wait_for("Ready", "Unknown", "ApiDenied")
    grant(stage.kubectl, chart_rules())
    stage.wait_for("Ready", "True", seconds=180)
    stage.kubectl("delete", "lora", NAME, "--wait")
    stage.apply()
    stage.wait_for("Ready", "True", seconds=180)
    stage.stages.waiting["resolve"] = Reason.CREDENTIALS_MISSING
    waits = {"metadata": {"name": "waits"}, "spec": spec_document()}
    stage.kubectl.apply({"apiVersion": API_VERSION, "kind": KIND, **waits})
    told = f'name="waits",namespace="{stage.kubectl.namespace}",phase="Waiting"'
    stage.until("an object waits", lambda: told in stage.operator.scrape())


def test_every_query_finds_data_in_what_prometheus_scraped(
    stage: OperatorStage, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    stage.stages.accelerator_seconds = 60
    meet_one_of_everything(stage)
    port, target = unused_tcp_port_factory(), stage.operator.metrics_port
    with scraping(tmp_path / "prometheus", port, target) as prometheus:
        found = {e: prometheus.query(filled(e, "1m", "1m")) for e in EXPRESSIONS}
    assert [expression for expression, result in found.items() if not result] == []
    phases = {r["metric"]["phase"]: r["value"][1] for r in found[EXPRESSIONS[0]]}
    assert phases == {"Serving": "1", "Waiting": "1"}
    retried = next(result for e, result in found.items() if "workqueue_retries" in e)
    assert {r["metric"]["cause"] for r in retried} == {"known"}
