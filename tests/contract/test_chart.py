"""What the chart renders: by default, with all of it on, with all of it off, in each mode."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from chart import (
    CHART,
    EVERYTHING,
    MONITORED,
    NAMESPACE,
    NOTHING,
    RELEASE,
    HelmError,
    helm,
    notes,
    of_kind,
    operator_pod,
    readme,
    render,
    render_all,
    render_tests,
    values_schema,
)
from lora_api.generate import generated_files
from lora_api.profile import PROFILES
from lora_api.runtimes import Runtime
from lora_operator import selftest
from lora_operator.allowed import Allowed
from lora_operator.logs import LogFormat, LogLevel
from lora_operator.podnetwork import PodNetwork
from lora_operator.settings import LeaseName, Settings

Json = dict[str, Any]
SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text())
VALUES: Json = yaml.safe_load((CHART / "values.yaml").read_text())
CRD = "CustomResourceDefinition"
OPEN = {
    "global", "nodeAffinity", "podAffinity", "podAntiAffinity", "labelSelector",
    "podSecurityContext", "securityContext", "namespaceSelector", "podSelector", "ipBlock",
}  # fmt: skip
"""Kubernetes' own structures: the API server checks them."""


def kinds(documents: list[Json]) -> list[str]:
    return sorted(document["kind"] for document in documents)


def pod_that_tests(documents: list[Json]) -> Json:
    """The pod of `helm test`."""
    [pod] = of_kind(documents, "Pod")
    return pod


def environment(documents: list[Json], pod_of: Callable[[list[Json]], Json] = operator_pod) -> Json:
    [container] = pod_of(documents)["spec"]["containers"]
    return {e["name"]: e["value"] for e in container["env"]}


def test_by_default_it_installs_crd_operator_and_cluster_wide_rights() -> None:
    assert kinds(render()) == [
        "ClusterRole", "ClusterRoleBinding", CRD, "Deployment", "ServiceAccount",
    ]  # fmt: skip


def test_with_all_on_budget_network_policy_and_monitoring_come_with_it() -> None:
    documents = render(MONITORED | {"namespaces": ["red"]})
    assert kinds(documents) == [
        "ConfigMap", CRD, "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule",
        "Role", "Role", "RoleBinding", "RoleBinding", "Service", "ServiceAccount",
        "ServiceMonitor",
    ]  # fmt: skip
    named = [d["metadata"]["name"] for d in documents if d["kind"] not in (CRD, "ServiceAccount")]
    assert set(named) == {"models-operator", "models-operator-lease"}


def test_with_all_off_only_the_operator_is_left() -> None:
    assert kinds(render(NOTHING)) == ["Deployment"]


def test_every_value_of_the_pod_reaches_the_pod() -> None:
    pod = operator_pod(render(EVERYTHING))
    spec, [container] = pod["spec"], pod["spec"]["containers"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[key] == EVERYTHING[key], key
    assert spec["serviceAccountName"] == "runner"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["metadata"]["labels"]["tier"] == "control"
    assert pod["metadata"]["labels"]["team"] == "models"
    assert pod["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    assert container["ports"][0]["containerPort"] == 9000
    assert container["args"][0] == "--health=http://0.0.0.0:9000/healthz"


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_everything_that_selects_the_pod_selects_it(values: Json) -> None:
    documents = render(values)
    labels = operator_pod(documents)["metadata"]["labels"].items()
    [deployment] = of_kind(documents, "Deployment")
    selectors = [deployment["spec"]["selector"]]
    selectors += [d["spec"]["selector"] for d in of_kind(documents, "PodDisruptionBudget")]
    selectors += [d["spec"]["podSelector"] for d in of_kind(documents, "NetworkPolicy")]
    spread = operator_pod(documents)["spec"].get("topologySpreadConstraints", [])
    selectors += [constraint["labelSelector"] for constraint in spread]
    assert len(selectors) == (4 if values else 1)
    for selector in selectors:
        assert selector["matchLabels"].items() <= labels


def test_a_spread_keeps_the_selector_that_was_given() -> None:
    own = {"matchLabels": {"tier": "control"}}
    given = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    documents = render({"topologySpreadConstraints": [given | {"labelSelector": own}]})
    [constraint] = operator_pod(documents)["spec"]["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"]["tier"] == "control"


def test_the_operator_reads_each_setting_as_it_was_given() -> None:
    settings = {
        "resyncSeconds": 60, "backoffMinSeconds": 1, "backoffMaxSeconds": 2.5, "progressSeconds": 3,
    }  # fmt: skip
    documents = render(EVERYTHING | {"namespaces": ["red", "blue"], "settings": settings})
    assert Settings.from_environment(environment(documents)) == Settings(
        jobs_image=VALUES["images"]["jobs"],
        quantize_image=VALUES["images"]["quantize"],
        serving_images={
            Runtime[name]: image for name, image in EVERYTHING["images"]["serving"].items()
        },
        cluster_name="eu-1",
        namespaces=("red", "blue"),
        allowed=Allowed(
            images=("registry.example/*",),
            service_accounts=(),
            secrets=("s3-*", "hub"),
            claims=("models-*",),
            endpoints=("*.storage.internal", "huggingface.co"),
            runtimes=("VLLM",),
        ),
        profiles=PROFILES.validate_python(EVERYTHING["profiles"]),
        resync_seconds=60,
        backoff_min_seconds=1,
        backoff_max_seconds=2.5,
        progress_seconds=3,
        log_level=LogLevel.DEBUG,
        log_format=LogFormat.JSON,
        runbooks_url="https://docs.example/lora/runbooks.html",
        lease=LeaseName(NAMESPACE, "models-operator"),
        lease_seconds=30,
        kueue_api_version="kueue.x-k8s.io/v1beta1",
        tracing_endpoint="http://collector.monitoring:4318/v1/traces",
        pod_network=PodNetwork(
            egress_ports=(9000,),
            egress_cidrs=("10.1.0.0/16",),
            clients=({"namespaceSelector": {"matchLabels": {"team": "gateway"}}},),
        ),
    )


def test_the_charts_defaults_are_the_operators() -> None:
    documents = render()
    images = {
        "jobs_image": VALUES["images"]["jobs"],
        "quantize_image": VALUES["images"]["quantize"],
    }
    assert Settings.from_environment(environment(documents)) == Settings(**images)


@pytest.mark.parametrize("values", [{}, EVERYTHING, NOTHING])
def test_helm_test_makes_one_pod_of_the_operators_image_and_account(values: Json) -> None:
    documents = render_tests(values)
    pod, operator = pod_that_tests(documents), operator_pod(render(values))
    [container], [operators] = pod["spec"]["containers"], operator["spec"]["containers"]
    assert container["image"] == operators["image"]
    assert container["command"] == ["python", "-m", selftest.__name__]
    assert container["resources"] == operators["resources"]
    for key in (
        "serviceAccountName",
        "nodeSelector",
        "tolerations",
        "affinity",
        "imagePullSecrets",
    ):
        assert pod["spec"].get(key) == operator["spec"].get(key), key
    policies = of_kind(documents, "NetworkPolicy")
    assert len(documents) == 1 + len(policies)
    assert len(policies) == len(of_kind(render(values), "NetworkPolicy"))
    for policy in policies:
        selected = policy["spec"]["podSelector"]["matchLabels"]
        assert selected.items() <= pod["metadata"]["labels"].items()
        [operators_own] = of_kind(render(values), "NetworkPolicy")
        assert policy["spec"]["egress"] == operators_own["spec"]["egress"]
        assert policy["spec"]["ingress"] == []


def test_nothing_that_selects_the_operator_selects_the_pod_of_helm_test() -> None:
    labels = pod_that_tests(render_tests(MONITORED))["metadata"]["labels"].items()
    documents = render(MONITORED)
    [deployment] = of_kind(documents, "Deployment")
    assert not deployment["spec"]["selector"]["matchLabels"].items() <= labels
    for service in of_kind(documents, "Service"):
        assert not service["spec"]["selector"].items() <= labels
    for budget in of_kind(documents, "PodDisruptionBudget"):
        assert not budget["spec"]["selector"]["matchLabels"].items() <= labels


@pytest.mark.parametrize(
    "values",
    [{}, {"namespaces": ["red", "blue"]}, EVERYTHING, EVERYTHING | {"namespaces": ["red"]}],
)
def test_helm_test_asks_for_each_right_of_the_roles_and_no_other(values: Json) -> None:
    told = environment(render_tests(values), pod_that_tests)
    asked = set(selftest.rights_of(selftest.GRANTED.validate_json(told[selftest.RIGHTS_ENV])))
    documents = render(values)
    roles = of_kind(documents, "Role") + of_kind(documents, "ClusterRole")
    granted = {
        selftest.Right(role["metadata"].get("namespace", ""), group, resource, name, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
    assert asked == granted
    account = operator_pod(documents)["spec"]["serviceAccountName"]
    assert told[selftest.ACCOUNT_ENV] == f"{NAMESPACE}/{account}"


def test_helm_test_asks_for_the_same_rights_where_somebody_else_grants_them() -> None:
    own, given = (
        environment(render_tests(values), pod_that_tests)[selftest.RIGHTS_ENV]
        for values in ({}, {"rbac": {"create": False}})
    )
    assert own == given


def test_after_an_install_the_next_steps_are_told() -> None:
    told = notes({"namespaces": ["red", "blue"], "images": {"serving": {"VLLM": "vllm:1"}}})
    assert "watches red, blue." in told
    assert f"helm test {RELEASE} --namespace {NAMESPACE} --logs" in told
    assert "create secret generic models-s3 --namespace red" in told
    assert "kubectl get lora --namespace red --watch" in told
    assert "kubectl lora status NAME --namespace red" in told
    for file in re.findall(r"\S+\.yaml", told):
        assert (CHART.parents[1] / file.strip("()")).is_file(), file
    for more in ("paused", "rbac.create", "images.serving.VLLM", "spec.profile"):
        assert more not in told


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "watches all namespaces."),
        ({}, "images.serving.VLLM is not set"),
        ({"images": {"serving": {"VLLM": "vllm:1"}}}, "images.serving.TRANSFORMERS is not set"),
        ({"replicas": 0}, "it is paused"),
        ({"rbac": {"create": False}}, "you grant the rights yourself"),
        (EVERYTHING, "spec.profile: gpu."),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_is_missing_after_an_install_is_told(values: Json, says: str) -> None:
    assert says in notes(values)


def test_an_uninstalled_chart_keeps_the_crd_unless_it_is_told_not_to() -> None:
    [kept], [gone] = (of_kind(render({"crds": {"keep": keep}}), CRD) for keep in (True, False))
    assert kept["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    plain = yaml.safe_load(generated_files()["crds/loradeployments.yaml"])
    assert kept == gone == plain


@pytest.mark.parametrize("pod_of", [operator_pod, pod_that_tests])
@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_the_pods_are_restricted_with_a_read_only_root(
    values: Json, pod_of: Callable[[list[Json]], Json]
) -> None:
    spec = pod_of(render_all(values))["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert [set(v) - {"name"} for v in spec["volumes"]] == [{"emptyDir"}]
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_only_the_operators_pod_gets_a_token() -> None:
    documents = render()
    [account] = of_kind(documents, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert operator_pod(documents)["spec"]["automountServiceAccountToken"] is True


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://collector:4318", 4318),
        ("https://traces.example/otlp/v1/traces", 443),
        ("http://collector", 80),
        ("http://[fd00::1]:4318", 4318),
    ],
)
def test_the_network_policy_lets_the_pod_reach_the_receiver_of_traces(
    endpoint: str, port: int
) -> None:
    values = {"networkPolicy": {"enabled": True}, "tracing": {"endpoint": endpoint}}
    [policy] = of_kind(render(values), "NetworkPolicy")
    assert policy["spec"]["egress"][-1] == {"ports": [{"port": port, "protocol": "TCP"}]}


@pytest.mark.parametrize("endpoint", ["collector:4317", "http://", "http://me:secret@collector"])
def test_what_is_no_address_of_a_receiver_is_refused(endpoint: str) -> None:
    with pytest.raises(HelmError, match="endpoint"):
        render({"tracing": {"endpoint": endpoint}})


def test_the_network_policy_lets_the_pod_reach_api_server_and_dns_only() -> None:
    [policy] = of_kind(render(EVERYTHING | {"tracing": {"endpoint": ""}}), "NetworkPolicy")
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    api, dns = spec["egress"]
    assert [p["port"] for p in api["ports"]] == [443, 6443]
    assert [to["ipBlock"]["cidr"] for to in api["to"]] == ["10.0.0.1/32", "fd00::1/128"]
    assert {(p["port"], p["protocol"]) for p in dns["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_only_who_is_named_may_scrape_the_metrics() -> None:
    [policy] = of_kind(render(EVERYTHING), "NetworkPolicy")
    [rule] = policy["spec"]["ingress"]
    assert rule["from"] == EVERYTHING["networkPolicy"]["metricsFrom"]
    assert [p["port"] for p in rule["ports"]] == ["metrics"]
    [closed] = of_kind(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")
    assert closed["spec"]["ingress"] == []


@pytest.mark.parametrize(("values", "served"), [({}, 8081), (EVERYTHING, 9001), (NOTHING, None)])
def test_the_pod_listens_where_the_service_sends_scrapes(values: Json, served: int | None) -> None:
    documents = render(values)
    [container] = operator_pod(documents)["spec"]["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports.get("metrics") == served
    told = [a for a in container["args"] if a.startswith("--metrics=")]
    assert told == ([f"--metrics=http://0.0.0.0:{served}/metrics"] if served else [])
    for service in of_kind(documents, "Service"):
        [port] = service["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (served, "metrics")
        labels = operator_pod(documents)["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(
    ("release", "name"), [("lora-operator", "lora-operator"), ("team", "team-lora-operator")]
)
def test_objects_are_named_by_the_release(release: str, name: str) -> None:
    documents = [d for d in render(release=release) if d["kind"] != CRD]
    assert {d["metadata"]["name"] for d in documents} == {name}
    assert {d["metadata"].get("namespace", NAMESPACE) for d in documents} == {NAMESPACE}


@pytest.mark.parametrize(
    "values",
    [
        {"namespace": ["red"]},
        {"crds": {"enable": False}},
        {"images": {"serving": {"vllm": "x"}}},
        {"settings": {"resyncSecond": 5}},
        {"metrics": {"serviceMonitor": {"intervall": "5s"}}},
        {"metrics": {"prometheusRule": {"enable": True}}},
        {"tolerations": [{"tolerationSecond": 5}]},
        {"resources": {"limit": {}}},
        {"topologySpreadConstraints": [{"topologykey": "zone"}]},
        {"networkPolicy": {"apiServerCIDR": []}},
        {"networkPolicy": {"pods": {"clients": []}}},
    ],
    ids=json.dumps,
)
def test_a_misspelt_value_is_refused(values: Json) -> None:
    with pytest.raises(HelmError, match="additional properties"):
        render(values)


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "two"},
        {"images": {"jobs": ""}},
        {"namespaces": ["Red"]},
        {"logging": {"format": "xml"}},
        {"health": {"port": 80}},
        {"commonLabels": {"app.kubernetes.io/name": "mine"}},
        {"settings": {"progressSeconds": 0}},
        {"metrics": {"serviceMonitor": {"interval": "soon"}}},
        {"podDisruptionBudget": {"maxUnavailable": "half"}},
        {"networkPolicy": {"apiServerCIDRs": ["10.0.0.1"]}},
        {"networkPolicy": {"pods": {"egressCIDRs": ["10.0.0.1"]}}},
        {"allowed": {"endpoints": ["https://s3.internal"]}},
        {"allowed": {"endpoints": ["s3.internal:9000"]}},
        {"allowed": {"endpoints": ["[fd00::1]"]}},
        {"allowed": {"runtimes": ["vllm"]}},
    ],
    ids=json.dumps,
)
def test_a_value_that_cannot_work_is_refused(values: Json) -> None:
    with pytest.raises(HelmError, match="values don't meet the specifications"):
        render(values)


def test_every_object_of_the_schema_is_closed() -> None:
    unclosed = [path for path, node in objects_of(SCHEMA) if "additionalProperties" not in node]
    assert set(unclosed) == OPEN


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    known = SCHEMA["properties"]
    assert set(known) - {"global"} == set(VALUES)
    for section, node in known.items():
        if "properties" in node and section not in ("resources", "affinity"):
            assert set(node["properties"]) == set(VALUES[section]), section
    assert set(known["images"]["properties"]["serving"]["properties"]) == {r.name for r in Runtime}


def test_the_schema_of_a_profile_is_that_of_the_model() -> None:
    assert (CHART / "values.schema.json").read_text() == values_schema(), "run `make generate`"


def test_the_schema_knows_the_operators_own_words() -> None:
    words = SCHEMA["properties"]["logging"]["properties"]
    assert words["level"]["enum"] == list(LogLevel)
    assert words["format"]["enum"] == list(LogFormat)
    runtimes = SCHEMA["properties"]["allowed"]["properties"]["runtimes"]
    assert runtimes["items"]["enum"] == ["*", *Runtime]
    assert all(hasattr(logging, level) for level in LogLevel)


def test_versions_and_images_of_the_chart_are_those_of_the_package() -> None:
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    found = re.search(r'^version = "(.*)"$', project, re.MULTILINE)
    assert found
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == found.group(1)
    images = [VALUES["images"][name] for name in ("operator", "jobs", "quantize")]
    assert {image.rpartition(":")[2] for image in images} == {found.group(1)}


@pytest.mark.parametrize("values", [{}, MONITORED, NOTHING], ids=["defaults", "all", "nothing"])
def test_helm_finds_nothing_to_complain_about(values: Json) -> None:
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict", values=values)


def test_the_readme_says_what_the_comments_of_the_values_say() -> None:
    assert (CHART / "README.md").read_text() == readme(), "run `make generate`"


def test_every_value_is_described() -> None:
    rows = re.findall(r"^\| ([\w.]+) \|.*\| (.*) \|$", readme(), re.MULTILINE)
    assert [key for key, description in rows if not description.strip()] == []
    assert len(rows) > len(VALUES)


def objects_of(node: Any, name: str = "") -> Iterator[tuple[str, Json]]:
    """Every schema of an object, with the name of its property."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield name, node
        for key, value in node.items():
            yield from objects_of(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from objects_of(item, name)
