"""The chart on a real API server: what it takes, what it refuses, and installing and leaving."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import spec_document
from chart import (
    CHART,
    EVERYTHING,
    NAMESPACE,
    NOTHING,
    RELEASE,
    helm,
    of_kind,
    operator_pod,
    render,
    render_all,
    render_tests,
)
from kubectl import Kubectl, KubectlError
from localcluster import tools
from localcluster.console import wait_until
from localcluster.controlplane import ControlPlane
from lora_api import API_VERSION, KIND
from operator_process import kubeconfig_of

pytestmark = pytest.mark.integration
Json = dict[str, Any]
CRD = "loradeployments.lora-operator.dev"
TEAM = "team"
MODES: dict[str, Json] = {
    "defaults": {},
    "everything": EVERYTHING,
    "everything, in one namespace": EVERYTHING | {"namespaces": [TEAM]},
    "nothing": NOTHING,
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without our CRD."""
    folder = tmp_path_factory.mktemp("chart-control-plane")
    with ControlPlane(folder, controller_manager=True) as running:
        yield running


@pytest.fixture(scope="module")
def admin(plane: ControlPlane) -> Kubectl:
    """kubectl as the cluster's admin, with the namespaces that the tests use."""
    kubectl = Kubectl((str(tools.hyperkube()), "kubectl"), plane.kubeconfig, NAMESPACE)
    for name, level in ((NAMESPACE, "restricted"), (TEAM, "privileged")):
        labels = {"pod-security.kubernetes.io/enforce": level}
        metadata = {"name": name, "labels": labels}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return kubectl


class Helm:
    """helm against the control plane."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def __call__(self, *arguments: str, values: Json | None = None) -> None:
        helm(*arguments, values=values, kubeconfig=self._kubectl.kubeconfig)

    def install(self, values: Json) -> None:
        """Install or upgrade; without a node no pod ever gets ready, so there is no wait."""
        self("upgrade", "--install", RELEASE, str(CHART), values=values)

    def uninstall(self) -> None:
        self("uninstall", RELEASE, "--wait")


@pytest.fixture
def release(admin: Kubectl) -> Iterator[Helm]:
    """Our release; afterwards neither release nor CRD is there."""
    running = Helm(admin)
    yield running
    running("uninstall", RELEASE, "--wait", "--ignore-not-found")
    admin("delete", "crd", CRD, "--ignore-not-found")


def try_out(kubectl: Kubectl, documents: list[Json]) -> list[str]:
    """Server-side apply that changes nothing; unknown fields are errors."""
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    taken: list[str] = []
    for document in documents:
        within = kubectl.within(document["metadata"].get("namespace", kubectl.namespace))
        taken += within(*arguments, stdin=json.dumps(document)).splitlines()
    return taken


def an_account(kubectl: Kubectl) -> str:
    """A service account in the release's namespace, without any right."""
    metadata = {"name": "tried", "namespace": NAMESPACE}
    kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    return "tried"


def lora() -> Json:
    metadata = {"name": "demo", "namespace": TEAM}
    return {
        "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec_document(),
    }  # fmt: skip


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
def test_the_api_server_takes_every_document(admin: Kubectl, values: Json) -> None:
    documents = render_all(values)
    [test] = of_kind(documents, "Pod")
    test["spec"]["serviceAccountName"] = an_account(admin)  # its own is not there yet
    assert len(try_out(admin, documents)) == len(documents)


def test_the_api_server_would_refuse_a_field_that_is_not_its_own(admin: Kubectl) -> None:
    [document] = render(NOTHING)
    document["spec"]["template"]["spec"]["tolerationz"] = []
    with pytest.raises(KubectlError, match="tolerationz"):
        try_out(admin, [document])


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
@pytest.mark.parametrize("which", ["operator", "helm test"])
def test_pod_security_restricted_admits_the_pods(admin: Kubectl, values: Json, which: str) -> None:
    documents = render_all(values)
    [test] = of_kind(documents, "Pod")
    spec = (operator_pod(documents) if which == "operator" else test)["spec"]
    spec["serviceAccountName"] = an_account(admin)
    named = {"metadata": {"name": "tried", "namespace": NAMESPACE}}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": spec} | named
    try_out(admin, [pod])
    spec["containers"][0]["securityContext"].pop("capabilities")
    with pytest.raises(KubectlError, match="restricted"):
        try_out(admin, [pod])


ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
REFUSED = [
    "get secrets", "list secrets", "watch secrets", "create pods", "create pods/exec",
    "create pods/attach", "delete pods", "get configmaps", "create serviceaccounts/token",
    "create namespaces", "list nodes", "create roles.rbac.authorization.k8s.io",
    "update loradeployments.lora-operator.dev", "patch loradeployments.lora-operator.dev",
    "delete loradeployments.lora-operator.dev",
]  # fmt: skip
NEEDED = ["create jobs.batch", "patch loradeployments.lora-operator.dev/status", "get pods/log"]


def may(kubectl: Kubectl, right: str) -> bool:
    """Whether the operator's account may, as the API server's own authorizer says."""
    verb, _, what = right.partition(" ")
    what, _, part = what.partition("/")
    resource, _, group = what.partition(".")
    asked = {
        "namespace": kubectl.namespace, "verb": verb, "group": group, "resource": resource,
        "subresource": part,
    }  # fmt: skip
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": ACCOUNT, "resourceAttributes": asked},
    }  # fmt: skip
    answer = json.loads(kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])


def test_the_operators_account_may_do_its_work_and_no_more(admin: Kubectl, release: Helm) -> None:
    release.install({"namespaces": [TEAM]})
    team, elsewhere = admin.within(TEAM), admin.within("default")
    for right in NEEDED:
        wait_until(right, lambda right=right: may(team, right), seconds=20)  # type: ignore[misc]
        assert not may(elsewhere, right)
    assert [right for right in REFUSED if may(team, right)] == []


class SelfTest:
    """The program of `helm test` as a process, with the account and the environment of its pod."""

    def __init__(self, kubectl: Kubectl, server: str, folder: Path) -> None:
        account = kubeconfig_of(kubectl, server, folder / "kubeconfig", RELEASE)
        self._environment = os.environ | {"KUBECONFIG": str(account)}

    def run(self, values: Json) -> "subprocess.CompletedProcess[str]":
        [pod] = of_kind(render_tests(values), "Pod")
        [container] = pod["spec"]["containers"]
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        return subprocess.run(
            [sys.executable, *container["command"][1:]], env=self._environment | given,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def wait(self, values: Json, said: str, code: int) -> None:
        """Until it says so: the authorizer hears of a changed role a little later."""
        last = self.run(values)

        def there() -> bool:
            nonlocal last
            last = self.run(values)
            return (said in last.stdout, last.returncode) == (True, code)

        try:
            wait_until(said, there, seconds=60)
        except Exception:
            pytest.fail(f"{last.returncode}: {last.stdout}{last.stderr}")


@pytest.mark.parametrize("values", [{}, {"namespaces": [TEAM]}], ids=["all", "some namespaces"])
def test_helm_test_says_what_the_account_lacks_and_what_to_do(
    admin: Kubectl, plane: ControlPlane, release: Helm, tmp_path: Path, values: Json
) -> None:
    values = values | {"leaderElection": {"enabled": True}}
    release.install(values | {"crds": {"enabled": False}})
    tested = SelfTest(admin, plane.server, tmp_path)
    tested.wait(values, "kubectl apply --server-side -f crds/loradeployments.yaml", 1)
    release.install(values)
    tested.wait(values, "has each of the ", 0)

    role = ("role", RELEASE) if "namespaces" in values else ("clusterrole", RELEASE)
    kubectl = admin.within(TEAM)
    rules = kubectl.get(*role)["rules"]
    [jobs] = [rule for rule in rules if rule["resources"] == ["jobs"]]
    jobs["verbs"].remove("create")
    kubectl("patch", *role, "--type=merge", "-p", json.dumps({"rules": rules}))
    where = f"in namespace {TEAM}" if "namespaces" in values else "in all namespaces"
    rule = '{apiGroups: ["batch"], resources: [jobs], verbs: [create]}'
    tested.wait(values, f"missing {where}: {rule}\ngrant this to service account", 1)


def test_the_mode_can_change_and_an_uninstall_keeps_the_users_objects(
    admin: Kubectl, release: Helm
) -> None:
    release.install({})
    admin("wait", "--for=create", f"crd/{CRD}", "--timeout=20s")
    admin("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=20s")
    team = admin.within(TEAM)
    team.apply(lora())
    uid = team.get("lora", "demo")["metadata"]["uid"]
    assert admin.exists("clusterrole", RELEASE)

    release.install({"namespaces": [TEAM]})
    assert not admin.exists("clusterrole", RELEASE)
    assert team.exists("role", RELEASE)
    assert team.exists("rolebinding", RELEASE)

    release.uninstall()
    assert not admin.exists("deployment", RELEASE)
    assert team.get("lora", "demo")["metadata"]["uid"] == uid

    release("upgrade", "--install", RELEASE, str(CHART), "--take-ownership", values={})
    assert team.get("lora", "demo")["metadata"]["uid"] == uid


def test_who_does_not_keep_the_crd_leaves_nothing_behind(admin: Kubectl, release: Helm) -> None:
    release.install({"crds": {"keep": False}})
    assert admin.exists("crd", CRD)
    release.uninstall()
    assert not admin.exists("crd", CRD)
