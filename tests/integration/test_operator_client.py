"""The client against a real API server: what it asks, and what the answers become."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import spec_document
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from lora_api import API_VERSION, KIND
from lora_api.conditions import ConditionStatus, ConditionType, set_condition
from lora_api.status import Status
from lora_operator.cluster import (
    DEPLOYMENTS,
    JOBS,
    LORA_DEPLOYMENTS,
    PODS,
    SERVICES,
    AlreadyExists,
    Cluster,
    Conflict,
    Denied,
    NotFound,
    Unavailable,
    connect,
)
from lora_operator.execute import write_status
from lora_operator.observe import observe_object
from lora_operator.observed import ObservedObject
from stand_in_logs import StandInLogs

pytestmark = pytest.mark.integration
NAMESPACE = "client"
MISSING = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def cluster(
    control_plane: ControlPlane, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    async with connect() as connected:
        yield connected
    kubectl.within(NAMESPACE)("delete", "lora,jobs,deployments,services", "--all", "--wait")


def service(name: str = "web", port: int = 80, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": {"ports": [{"name": "http", "port": port}]},
    }


def lora(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "demo", "namespace": NAMESPACE},
        "spec": spec_document(**spec),
    }


async def observed(cluster: Cluster) -> ObservedObject:
    seen = await observe_object(cluster, NAMESPACE, "demo")
    assert seen is not None
    return seen


def status(message: str) -> Status:
    conditions = set_condition(
        [], ConditionType.READY, ConditionStatus.UNKNOWN, "Pending", message, 1,
        "2026-11-22T10:00:00Z",
    )  # fmt: skip
    return Status(conditions=conditions)


async def test_what_is_not_there_is_none_and_a_taken_name_is_told(cluster: Cluster) -> None:
    assert await cluster.get(SERVICES, NAMESPACE, "web") is None
    made = await cluster.create(SERVICES, service())
    found = await cluster.get(SERVICES, NAMESPACE, "web")
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(AlreadyExists):
        await cluster.create(SERVICES, service())


async def test_any_character_of_a_spec_may_stand_in_a_status_and_in_what_is_applied(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    said = "größe 模型 \u202e \u2028 \x85 \x7f 😀 \\ud83d\\ude00"
    await cluster.create(LORA_DEPLOYMENTS, lora())
    await write_status(cluster, await observed(cluster), status(said))
    assert (await observed(cluster)).status["conditions"][0]["message"] == said
    made = await cluster.apply(SERVICES, service(annotations={"said": said}))
    assert made["metadata"]["annotations"]["said"] == said


async def test_an_equal_apply_changes_nothing_and_a_left_out_field_goes(cluster: Cluster) -> None:
    first = await cluster.apply(SERVICES, service(labels={"a": "1", "b": "2"}))
    again = await cluster.apply(SERVICES, service(labels={"a": "1", "b": "2"}))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    lesser = await cluster.apply(SERVICES, service(labels={"a": "1"}))
    assert lesser["metadata"]["labels"] == {"a": "1"}
    managers = {(m["manager"], m["operation"]) for m in lesser["metadata"]["managedFields"]}
    assert managers == {("lora-operator", "Apply")}


async def test_an_apply_over_a_version_that_is_no_more_is_refused(cluster: Cluster) -> None:
    first = await cluster.apply(SERVICES, service())
    await cluster.apply(SERVICES, service(port=81))
    seen = {key: first["metadata"][key] for key in ("uid", "resourceVersion")}
    with pytest.raises(Conflict):
        await cluster.apply(SERVICES, service(port=82, **seen))
    await cluster.delete(SERVICES, NAMESPACE, "web", first["metadata"]["uid"])
    with pytest.raises((Conflict, NotFound)):
        await cluster.apply(SERVICES, service(port=82, **seen))
    assert await cluster.get(SERVICES, NAMESPACE, "web") is None


async def test_only_the_very_object_is_deleted_or_patched(cluster: Cluster) -> None:
    await cluster.create(SERVICES, service())
    with pytest.raises(Conflict):
        await cluster.delete(SERVICES, NAMESPACE, "web", MISSING)
    with pytest.raises(Conflict):
        await cluster.patch(SERVICES, NAMESPACE, "web", {"metadata": {"uid": MISSING}})
    with pytest.raises(NotFound):
        await cluster.delete(SERVICES, NAMESPACE, "other", MISSING)
    assert await cluster.get(SERVICES, NAMESPACE, "web") is not None


async def test_a_status_is_written_over_the_version_that_was_read_only(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    own = kubectl.within(NAMESPACE)
    own.apply(lora())
    parent = await observed(cluster)
    await write_status(cluster, parent, status("first"))
    with pytest.raises(Conflict):
        await write_status(cluster, parent, status("second"))
    parent = await observed(cluster)
    assert Status.model_validate(parent.status) == status("first")
    await write_status(cluster, parent, status("first"))
    assert (await observed(cluster)).resource_version == parent.resource_version


@pytest.mark.fault("F42")
async def test_a_namesake_never_gets_the_status_of_its_predecessor(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    own = kubectl.within(NAMESPACE)
    own.apply(lora())
    parent = await observed(cluster)
    own("delete", "lora", "demo", "--wait")
    with pytest.raises(NotFound):
        await write_status(cluster, parent, status("of the dead"))
    own.apply(lora())
    with pytest.raises(Conflict):
        await write_status(cluster, parent, status("of the dead"))
    assert Status.model_validate((await observed(cluster)).status) == Status()


async def test_what_the_server_refuses_is_denied_in_its_own_words(cluster: Cluster) -> None:
    with pytest.raises(Denied, match=r'denies "create" of services: .*spec.ports'):
        await cluster.create(SERVICES, service(port=0))
    job = {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "nowhere", "namespace": "no-such-namespace"}, "spec": {},
    }  # fmt: skip
    with pytest.raises((Denied, NotFound)):
        await cluster.create(JOBS, job)


async def test_a_token_that_is_not_accepted_is_told_in_one_line_and_tried_again(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load(control_plane.kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"token": "of an account that is gone"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with connect() as stranger:
        with pytest.raises(Unavailable, match=r"^401 get .*does not accept the operator's token"):
            await stranger.get(LORA_DEPLOYMENTS, NAMESPACE, "demo")


async def test_a_list_is_read_to_its_last_page(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_operator.cluster._PAGE", 2)
    for number in range(5):
        await cluster.create(SERVICES, service(f"web-{number}", labels={"set": "five"}))
    found = await cluster.list_items(SERVICES, NAMESPACE, "set=five")
    assert [s["metadata"]["name"] for s in found] == [f"web-{n}" for n in range(5)]
    everywhere = await cluster.list_items(SERVICES, selector="set=five")
    assert len(everywhere) == 5
    assert await cluster.list_items(DEPLOYMENTS, NAMESPACE) == []


async def test_the_last_lines_of_a_log_are_read_and_a_log_that_cannot_be_had_is_empty(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    own = kubectl.within(NAMESPACE)
    with StandInLogs([f"line {n}" for n in range(100)]) as logs:
        own.apply(_pod("placed", nodeName="stand-in"), _pod("unplaced"), _node("stand-in"))
        own("patch", "node", "stand-in", "--subresource=status", "-p", _endpoint(logs.port))
        tail = await cluster.read_log_tail(NAMESPACE, "placed", "stage", 3)
        assert tail.splitlines() == ["line 97", "line 98", "line 99"]
        path, query = logs.asked[0]
        assert path == f"/containerLogs/{NAMESPACE}/placed/stage"
        assert query["limitBytes"] == ["65536"]
        assert await cluster.read_log_tail(NAMESPACE, "unplaced", "stage", 3) == ""
        assert await cluster.read_log_tail(NAMESPACE, "missing", "stage", 3) == ""
    assert await cluster.read_log_tail(NAMESPACE, "placed", "stage", 3) == "", "no one listens"
    own("delete", "pod", "placed", "unplaced", "--force", "--grace-period=0")
    own("delete", "node", "stand-in")
    assert await cluster.list_items(PODS, NAMESPACE) == []


def _pod(name: str, **spec: str) -> dict[str, Any]:
    container = {"name": "stage", "image": "none"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [container], **spec},
    }  # fmt: skip


def _node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def _endpoint(port: int) -> str:
    address = '{"type": "InternalIP", "address": "127.0.0.1"}'
    kubelet = f'{{"kubeletEndpoint": {{"Port": {port}}}}}'
    return f'{{"status": {{"addresses": [{address}], "daemonEndpoints": {kubelet}}}}}'


def test_an_explicit_kubeconfig_comes_before_the_pods_own_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lora_operator import cluster as client

    token = tmp_path / "token"
    monkeypatch.setattr(client, "SERVICE_ACCOUNT_TOKEN", token)
    assert not client.runs_in_pod({})
    token.touch()
    assert client.runs_in_pod({})
    assert not client.runs_in_pod({"KUBECONFIG": "/a/file"})
