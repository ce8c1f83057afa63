"""The Grafana dashboard: what it reads, how it is installed, and its picture in the docs."""

import json
import re
from pathlib import Path

from chart import MONITORED, of_kind, render
from lora_operator.metrics import Metrics
from prometheus import DASHBOARD, EXPRESSIONS
from promql import metric_names, named_metrics

PICTURE = Path(__file__).parents[2] / "docs/images/dashboard.svg"


def test_the_queries_read_only_metrics_that_the_operator_has() -> None:
    known = metric_names(Metrics().registry)
    for expression in EXPRESSIONS:
        read = named_metrics(expression)
        assert read, expression
        assert read <= known, expression


def test_every_metric_of_the_operator_is_shown_or_said_to_be_of_no_use_there() -> None:
    shown = set().union(*map(named_metrics, EXPRESSIONS))
    families = {f.name for f in Metrics().registry.collect() if f.name.startswith("lora_operator")}
    unseen = {f for f in families if not any(name.startswith(f) for name in shown)}
    assert unseen == {"lora_operator_event_loop_tasks", "lora_operator_trace_spans"}


def test_the_config_map_holds_the_dashboard_for_the_sidecar() -> None:
    [found] = of_kind(render(MONITORED), "ConfigMap")
    assert json.loads(found["data"]["lora-operator.json"]) == DASHBOARD
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_picture_in_the_docs_has_every_panel() -> None:
    """`make dashboard-picture` draws it anew."""
    drawn = set(re.findall(r"<text[^>]*>([^<]*)</text>", PICTURE.read_text()))
    assert {panel["title"] for panel in DASHBOARD["panels"]} <= drawn
    assert PICTURE.stat().st_size < 300 * 1024
