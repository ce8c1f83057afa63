"""The NetworkPolicies of an object's pods: they select them, and open what is needed alone."""

from dataclasses import replace
from typing import Any

import pytest

from builders import spec_document
from fake_cluster import FakeCluster
from lora_api.jobcontract import RunReference, Stage, StageCall, StageRequest, StoreReference
from lora_api.parameters import ServingRecipe
from lora_api.runtimes import SERVING_PORT, Runtime
from lora_api.spec import parse_spec
from lora_operator.actions import ApplyDeployment, CreateJob
from lora_operator.cluster import POLICIES, Denied
from lora_operator.execute import Executor
from lora_operator.manifests.network import serving_policy, stage_policy
from lora_operator.observed import ObservedObject
from lora_operator.podnetwork import PodNetwork, parse_pod_network
from lora_operator.settings import Settings

Json = dict[str, Any]
PARENT = ObservedObject("team", "demo", "uid-demo", 1, "1", spec_document(), {}, {})
SPEC = parse_spec(spec_document())
SETTINGS = Settings(jobs_image="jobs", quantize_image="quantize", pod_network=PodNetwork())
RECIPE = ServingRecipe(
    runtime=Runtime.TRANSFORMERS, image="serve", accelerator="None", model_name="demo"
)
JOB = CreateJob(
    "demo-merge",
    StageRequest(
        call=StageCall(stage=Stage.MERGE),
        run=RunReference(namespace="team", name="demo", uid="uid-demo"),
        store=StoreReference(uri="s3://models/store", scope="team"),
    ),
)
RELEASE = ApplyDeployment("demo-1", "12345678", "d", "default", RECIPE.to_json(), 1)


def ports(rule: Json) -> set[tuple[int, str]]:
    return {(p["port"], p["protocol"]) for p in rule["ports"]}


def selects(selector: Json, pod_labels: Json) -> bool:
    """As the API server reads a label selector of these two kinds."""
    wanted = selector["matchLabels"].items() <= pod_labels.items()
    return wanted and all(e["key"] in pod_labels for e in selector["matchExpressions"])


async def carried_out(cluster: FakeCluster, settings: Settings = SETTINGS) -> list[str]:
    for action in (JOB, RELEASE):
        await Executor(cluster, settings, PARENT).execute(action)
    return [f"{plural} {name}" for _, plural, name in cluster.writes]


async def test_the_policies_come_before_the_pods_that_they_hold_for() -> None:
    assert await carried_out(FakeCluster()) == [
        "networkpolicies demo-stages", "jobs demo-merge",
        "networkpolicies demo-serving", "deployments demo-1",
    ]  # fmt: skip


async def test_without_the_setting_there_are_none() -> None:
    off = replace(SETTINGS, pod_network=None)
    assert await carried_out(FakeCluster(), off) == ["jobs demo-merge", "deployments demo-1"]


async def test_no_pod_starts_where_its_policy_is_denied() -> None:
    cluster = FakeCluster()
    cluster.refusals["apply", "networkpolicies"] = Denied("no")
    for action in (JOB, RELEASE):
        with pytest.raises(Denied):
            await Executor(cluster, SETTINGS, PARENT).execute(action)
    assert cluster.writes == []


async def test_each_pod_is_held_by_exactly_one_policy_and_a_neighbours_by_none() -> None:
    cluster = FakeCluster()
    await carried_out(cluster)
    templates = {
        kind: cluster.objects[kind, "team", name]["spec"]["template"]["metadata"]["labels"]
        for kind, name in (("jobs", "demo-merge"), ("deployments", "demo-1"))
    }
    selectors = {
        name: document["spec"]["podSelector"]
        for (plural, _, name), document in cluster.objects.items()
        if plural == POLICIES.plural
    }
    holding = {
        kind: [name for name, selector in selectors.items() if selects(selector, pod)]
        for kind, pod in templates.items()
    }
    assert holding == {"jobs": ["demo-stages"], "deployments": ["demo-serving"]}
    neighbour = templates["jobs"] | {"lora-operator.dev/name": "another"}
    assert not any(selects(selector, neighbour) for selector in selectors.values())


def test_stage_pods_reach_dns_the_endpoints_and_the_pods_that_verify_asks() -> None:
    spec = stage_policy(PARENT, SPEC, PodNetwork())["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    dns, places, engines = spec["egress"]
    assert ports(dns) == {(53, "UDP"), (53, "TCP")}
    assert ports(places) == {(443, "TCP"), (7070, "TCP")}
    assert ports(engines) == {(SERVING_PORT, "TCP")}
    [peer] = engines["to"]
    assert set(peer) == {"podSelector"}, "without a namespaceSelector: of this namespace only"


def test_serving_pods_reach_dns_and_the_store_only() -> None:
    egress = serving_policy(PARENT, SPEC, PodNetwork())["spec"]["egress"]
    assert [ports(rule) for rule in egress] == [{(53, "UDP"), (53, "TCP")}, {(7070, "TCP")}]


def test_only_the_engines_port_is_open() -> None:
    [rule] = serving_policy(PARENT, SPEC, PodNetwork())["spec"]["ingress"]
    assert rule == {"ports": [{"port": SERVING_PORT, "protocol": "TCP"}]}


def test_only_named_clients_and_verify_reach_the_engine() -> None:
    gateway = {"namespaceSelector": {"matchLabels": {"team": "gateway"}}}
    [rule] = serving_policy(PARENT, SPEC, PodNetwork(clients=(gateway,)))["spec"]["ingress"]
    first, verify = rule["from"]
    assert first == gateway
    stage = {"lora-operator.dev/name": "demo", "lora-operator.dev/stage": "verify"}
    assert selects(verify["podSelector"], stage)
    assert not selects(verify["podSelector"], stage | {"lora-operator.dev/name": "other"})


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("", 443), ("https://s3.internal", 443), ("http://minio", 80), ("https://minio:9000/x", 9000)],
)
def test_the_port_is_the_endpoints(endpoint: str, port: int) -> None:
    connections = [{"name": "models", "s3": {"endpoint": endpoint}}]
    spec = parse_spec(spec_document(connections=connections))
    _, store = serving_policy(PARENT, spec, PodNetwork())["spec"]["egress"]
    assert ports(store) == {(port, "TCP")}


def test_an_admin_adds_ports_and_narrows_addresses() -> None:
    network = PodNetwork(egress_ports=(80, 9000), egress_cidrs=("10.1.0.0/16",), dns_ports=(5353,))
    for policy in (stage_policy, serving_policy):
        dns, places, *_ = policy(PARENT, SPEC, network)["spec"]["egress"]
        assert {port for port, _ in ports(dns)} == {5353}
        assert {port for port, _ in ports(places)} >= {80, 9000, 7070}
        assert places["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]


async def test_they_are_written_once_and_go_with_their_object() -> None:
    cluster = FakeCluster()
    await carried_out(cluster)
    cluster.writes.clear()
    assert "networkpolicies" not in " ".join(await carried_out(cluster))
    for name in ("demo-stages", "demo-serving"):
        metadata = cluster.objects["networkpolicies", "team", name]["metadata"]
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == ["uid-demo"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"dnsPorts": ["dns"]}'])
def test_a_setting_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LORA_OPERATOR_POD_NETWORK"):
        parse_pod_network(text)
