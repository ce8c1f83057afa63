"""The chart grants what the operator asks of the API server: all of it, and nothing else.

What a call asks for is written down here once; that a real API server agrees is what the
integration tests show, which run with these rights.
"""

from dataclasses import replace
from typing import Any, get_args

import pytest

from builders import spec_document
from chart import NAMESPACE, RELEASE, HelmError, chart_rules, of_kind, render
from fake_cluster import FakeCluster
from lora_api import GROUP, PLURAL
from lora_api.gates import Verdict
from lora_api.jobcontract import (
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_api.naming import labels
from lora_api.parameters import ServingRecipe
from lora_api.runtimes import Runtime
from lora_api.status import ReleaseStatus, StageState, StageStatus, Status
from lora_operator.actions import (
    Action,
    ApplyDeployment,
    ApplyService,
    CreateJob,
    DeleteDeployment,
    DeleteJob,
    EmitEvent,
    GiveUpRelease,
)
from lora_operator.cluster import CHILDREN, LORA_DEPLOYMENTS, PODS, Kind
from lora_operator.execute import Executor, post_event, write_status
from lora_operator.lease import Leadership, Times, Watchdog
from lora_operator.observe import observe_children, observe_object
from lora_operator.observed import ObservedObject
from lora_operator.podnetwork import PodNetwork
from lora_operator.queues import QUEUE_LABEL
from lora_operator.settings import LeaseName, Settings

Right = tuple[str, str, str]
"""(group, resource, verb)"""
SETTINGS = Settings(jobs_image="jobs", quantize_image="quantize")
REQUEST = StageRequest(
    call=StageCall(stage=Stage.MERGE),
    run=RunReference(namespace="team", name="demo", uid="uid-demo"),
    store=StoreReference(uri="s3://models/store", scope="team"),
)
NOW = "2026-11-22T10:00:00Z"
RECIPE = ServingRecipe(
    runtime=Runtime.TRANSFORMERS, image="serve", accelerator="None", model_name="demo"
)
FORBIDDEN = {"secrets", "serviceaccounts", "roles", "rolebindings", "clusterroles", "nodes"}
ESCALATING = {"escalate", "bind", "impersonate", "deletecollection", "update"}
ACTIONS: tuple[Action, ...] = (
    CreateJob("demo-merge", REQUEST),
    CreateJob("demo-merge", REQUEST),  # it exists by now
    ApplyDeployment("demo-1", "12345678", "sha256:1", "default", RECIPE.to_json(), 2),
    ApplyService("demo", "12345678"),
    GiveUpRelease("demo-1", "uid", "why"),
    DeleteDeployment("demo-1", "uid", "why"),
    DeleteJob("demo-merge", "uid", "why"),
)


class AskingCluster(FakeCluster):
    """Writes down the rights that each call needs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[Right] = set()

    def ask(self, kind: Kind, *verbs: str, part: str = "") -> None:
        group = kind.api_version.rpartition("/")[0]
        self.asked |= {(group, kind.plural + part, verb) for verb in verbs}

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        self.ask(kind, "get")
        return await super().get(kind, namespace, name)

    async def list_items(
        self, kind: Kind, namespace: str = "", selector: str = ""
    ) -> list[dict[str, Any]]:
        self.ask(kind, "list")
        return await super().list_items(kind, namespace, selector)

    async def create(self, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
        self.ask(kind, "create")
        return await super().create(kind, document)

    async def apply(self, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
        self.ask(kind, "patch", "create")  # of an object that is not there yet
        return await super().apply(kind, document)

    async def apply_status(self, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
        self.ask(kind, "patch", part="/status")
        return await super().apply_status(kind, document)

    async def patch(
        self, kind: Kind, namespace: str, name: str, change: dict[str, Any]
    ) -> dict[str, Any]:
        self.ask(kind, "patch")
        return await super().patch(kind, namespace, name, change)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        self.ask(kind, "delete")
        await super().delete(kind, namespace, name, uid)

    async def read_log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        self.ask(PODS, "get", part="/log")
        return await super().read_log_tail(namespace, pod, container, lines)


async def rights_asked_for(settings: Settings = SETTINGS) -> set[Right]:
    """Everything that the operator does, done once; kopf lists and watches besides."""
    cluster = AskingCluster()
    for kind in (LORA_DEPLOYMENTS, *CHILDREN):
        cluster.ask(kind, "list", "watch")
    metadata = {"name": "demo", "namespace": "team", "uid": "uid-demo"}
    counted_on = Status(
        stages=[StageStatus(name="merge", state=StageState.PENDING, job="unlisted")],
        releases=[
            ReleaseStatus(
                id="12345678", number=1, digest="1", verdict=Verdict.PASSED, created_at=NOW
            )
        ],
    )
    document = {"metadata": metadata, "spec": spec_document(), "status": counted_on.to_json()}
    cluster.add(LORA_DEPLOYMENTS, document)
    parent = await observe_object(cluster, "team", "demo")
    assert parent is not None
    await carry_out_everything(cluster, parent, settings)
    run_a_pod(cluster)
    hold_the_job_back(cluster)
    await observe_children(cluster, parent, settings.kueue_api_version)
    await write_status(cluster, parent, counted_on)
    return cluster.asked


async def carry_out_everything(
    cluster: AskingCluster, parent: ObservedObject, settings: Settings
) -> None:
    assert {*map(type, ACTIONS), EmitEvent} == set(get_args(Action)), "an action is left out"
    for action in ACTIONS[:3]:
        await Executor(cluster, settings, parent).execute(action)
    cluster.objects["deployments", "team", "demo-1"]["metadata"]["uid"] = "uid"
    for action in ACTIONS[3:]:
        await Executor(cluster, settings, parent).execute(action)
    told = EmitEvent("Warning", "AccessDenied", "no access; grant it")
    for _ in range(2):
        await post_event(cluster, parent, told, NOW)


def run_a_pod(cluster: AskingCluster) -> None:
    [job] = [document for (plural, *_), document in cluster.objects.items() if plural == "jobs"]
    owner = {"uid": job["metadata"]["uid"], "controller": True}
    state = {"running": {"startedAt": NOW}}
    cluster.add(PODS, {
        "metadata": {"name": "pod", "namespace": "team", "labels": labels("demo"),
                     "ownerReferences": [owner]},
        "status": {"containerStatuses": [{"name": "stage", "state": state}]},
    })  # fmt: skip


def hold_the_job_back(cluster: AskingCluster) -> None:
    [job] = [document for (plural, *_), document in cluster.objects.items() if plural == "jobs"]
    job["spec"]["suspend"] = True
    job["metadata"]["labels"][QUEUE_LABEL] = "team-queue"


def rights_granted(values: dict[str, Any] | None = None) -> list[Right]:
    return [
        (group, resource, verb)
        for rule in chart_rules(values)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ({}, SETTINGS),
        (
            {"networkPolicy": {"pods": {"enabled": True}}},
            replace(SETTINGS, pod_network=PodNetwork()),
        ),
        (
            {"kueue": {"enabled": True}},
            replace(SETTINGS, kueue_api_version="kueue.x-k8s.io/v1beta2"),
        ),
    ],
    ids=["default", "network policies for pods", "Kueue"],
)
async def test_the_chart_grants_exactly_what_the_operator_calls(
    values: dict[str, Any], settings: Settings
) -> None:
    granted = rights_granted(values)
    assert len(granted) == len(set(granted)), "a right is granted twice"
    assert set(granted) == await rights_asked_for(settings)


async def test_leader_election_takes_rights_on_one_lease_in_the_namespace_of_the_release() -> None:
    documents = render({"leaderElection": {"enabled": True}})
    [role], [binding] = of_kind(documents, "Role"), of_kind(documents, "RoleBinding")
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == NAMESPACE
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, [RELEASE]]
    granted = {("leases", verb) for rule in role["rules"] for verb in rule["verbs"]}
    cluster = AskingCluster()
    at, times = LeaseName(NAMESPACE, RELEASE), Times(15.0)
    for identity in ("first", "second"):
        leadership = Leadership(cluster, at, identity, times, Watchdog(times.renew_deadline))
        await leadership.take()
        await leadership.give_back()
    assert {(resource, verb) for _, resource, verb in cluster.asked} == granted


def test_no_wildcard_and_no_verb_on_secrets_is_granted_in_any_mode() -> None:
    for values in ({}, {"namespaces": ["red", "blue"]}):
        documents = render(values)
        for role in of_kind(documents, "Role") + of_kind(documents, "ClusterRole"):
            for rule in role["rules"]:
                assert set(rule) == {"apiGroups", "resources", "verbs"}
                for part in rule.values():
                    assert "*" not in "".join(part)
                assert not {r.partition("/")[0] for r in rule["resources"]} & FORBIDDEN
                assert not set(rule["verbs"]) & ESCALATING


def test_the_specs_of_users_are_never_written() -> None:
    verbs = {v for group, resource, v in rights_granted() if (group, resource) == (GROUP, PLURAL)}
    assert verbs == {"get", "list", "watch"}


def test_watching_some_namespaces_takes_no_right_beyond_them() -> None:
    documents = render({"namespaces": ["red", "blue"]})
    assert of_kind(documents, "ClusterRole") == of_kind(documents, "ClusterRoleBinding") == []
    roles, bindings = of_kind(documents, "Role"), of_kind(documents, "RoleBinding")
    assert [d["metadata"]["namespace"] for d in roles] == ["red", "blue"]
    assert [d["metadata"]["namespace"] for d in bindings] == ["red", "blue"]
    assert {str(d["rules"]) for d in roles} == {str(chart_rules())}


def test_watching_all_namespaces_takes_one_cluster_role() -> None:
    documents = render()
    assert of_kind(documents, "Role") == of_kind(documents, "RoleBinding") == []
    [role], [binding] = (of_kind(documents, k) for k in ("ClusterRole", "ClusterRoleBinding"))
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


@pytest.mark.parametrize("values", [{}, {"namespaces": ["red"]}, {"serviceAccount": {"name": "a"}}])
def test_the_rights_are_bound_to_the_account_that_the_pod_runs_as(values: dict[str, Any]) -> None:
    documents = render(values)
    [binding] = of_kind(documents, "RoleBinding") + of_kind(documents, "ClusterRoleBinding")
    [deployment] = of_kind(documents, "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    ]
    [created] = of_kind(documents, "ServiceAccount")
    assert created["metadata"]["name"] == account


def test_an_account_that_is_not_made_must_be_named() -> None:
    with pytest.raises(HelmError, match="serviceAccount"):
        render({"serviceAccount": {"create": False}})
