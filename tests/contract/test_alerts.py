"""The chart's alerts: promtool fires each, and each reads metrics that the operator has."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import MONITORED, NAMESPACE, HelmError, of_kind, operator_pod, render
from lora_operator.metrics import Metrics
from promql import metric_names, named_metrics, promtool

Json = dict[str, Any]
CASES = Path(__file__).with_name("alert_cases.yaml")
RUNBOOKS = Path(__file__).parents[2] / "docs/alerts.md"


@pytest.fixture(scope="module")
def documents() -> list[Json]:
    """The chart with monitoring on."""
    return render(MONITORED)


@pytest.fixture(scope="module")
def groups(documents: list[Json]) -> list[Json]:
    """The groups of rules as they are installed."""
    [rule] = of_kind(documents, "PrometheusRule")
    found: list[Json] = rule["spec"]["groups"]
    return found


def alerts_of(groups: list[Json]) -> list[Json]:
    return [rule for group in groups for rule in group["rules"]]


def tried(groups: list[Json], folder: Path) -> tuple[int, str]:
    """promtool's exit code and words for all cases, of rules as the chart renders them."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    cases: Json = yaml.safe_load(CASES.read_text())
    texts = {
        rule["alert"]: {k: rule["annotations"][k] for k in ("summary", "runbook_url")}
        for rule in alerts_of(groups)
    }
    for case in cases["tests"]:
        for look in case["alert_rule_test"]:
            for expected in look["exp_alerts"]:
                expected["exp_annotations"] |= texts[look["alertname"]]
    (folder / "cases.yaml").write_text(yaml.safe_dump(cases))
    done = promtool("test", "rules", folder / "cases.yaml")
    return done.returncode, done.stdout + done.stderr


def test_each_alert_fires_in_its_case_and_not_before(groups: list[Json], tmp_path: Path) -> None:
    code, said = tried(groups, tmp_path)
    assert code == 0, said


def test_each_alert_has_a_case_that_fires_and_one_that_does_not(groups: list[Json]) -> None:
    looks = [
        look for c in yaml.safe_load(CASES.read_text())["tests"] for look in c["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in alerts_of(groups)}
    assert {look["alertname"] for look in looks if look["exp_alerts"]} == names
    assert {look["alertname"] for look in looks if not look["exp_alerts"]} == names


def test_a_rule_that_never_fires_is_noticed(groups: list[Json], tmp_path: Path) -> None:
    broken = json.loads(json.dumps(groups))
    [stalled] = [rule for rule in alerts_of(broken) if rule["alert"] == "LoraDeploymentStalled"]
    stalled["expr"] = stalled["expr"].replace("Stalled", "Staled")
    code, said = tried(broken, tmp_path)
    assert code == 1
    assert "LoraDeploymentStalled" in said


def test_the_rules_read_only_metrics_that_the_operator_has(groups: list[Json]) -> None:
    known = metric_names(Metrics().registry)
    for rule in alerts_of(groups):
        read = named_metrics(rule["expr"])
        assert read, rule["alert"]
        assert read <= known, rule["alert"]


def test_each_alert_links_an_entry_of_the_runbooks(groups: list[Json]) -> None:
    names = [rule["alert"] for rule in alerts_of(groups)]
    entries = [line[3:] for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")]
    assert entries == names
    page = MONITORED["metrics"]["prometheusRule"]["runbookPage"]
    for rule in alerts_of(groups):
        assert rule["annotations"]["runbook_url"] == f"{page}#{rule['alert'].lower()}"


def test_the_service_monitor_scrapes_the_port_that_the_service_has(documents: list[Json]) -> None:
    [monitor], [service] = (of_kind(documents, kind) for kind in ("ServiceMonitor", "Service"))
    [endpoint], [port] = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert (endpoint["interval"], endpoint["honorLabels"]) == ("30s", True)
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    [container] = operator_pod(documents)["spec"]["containers"]
    [told] = [word for word in container["args"] if word.startswith("--metrics=")]
    assert told.endswith(endpoint["path"])


def test_prometheus_can_select_both_by_a_label(documents: list[Json]) -> None:
    for kind in ("ServiceMonitor", "PrometheusRule"):
        [found] = of_kind(documents, kind)
        assert found["metadata"]["labels"]["prometheus"] == "main"
        assert found["metadata"]["labels"]["team"] == "models"


def test_a_monitor_without_a_service_is_refused() -> None:
    with pytest.raises(HelmError, match=r"needs metrics\.service\.enabled"):
        render({"metrics": {"serviceMonitor": {"enabled": True}}})
