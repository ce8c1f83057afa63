"""What a GitOps tool does to an object that serves, on a real API server: nothing comes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import spec_document
from gitops import by_kstatus, in_argo_cd, in_flux
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from lora_api import API_VERSION, KIND
from operator_stage import NAME, OperatorStage

pytestmark = pytest.mark.integration
Json = dict[str, Any]
SYNCS = 60
IN_GIT: Json = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {"name": NAME, "labels": {"app.kubernetes.io/instance": "models"}},
    "spec": spec_document(),
}
SYNC = ("apply", "--server-side", "--field-manager=argocd-controller", "-f", "-")


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    """An object from Git, served; no stage has to work for it."""
    with OperatorStage(control_plane, kubectl, tmp_path) as running:
        running.stages.prepared = True
        sync(running)
        running.wait_for("Ready", "True")
        yield running


def sync(stage: OperatorStage, **metadata: Any) -> None:
    document = IN_GIT | {"metadata": IN_GIT["metadata"] | metadata}
    stage.kubectl(*SYNC, stdin=yaml.safe_dump(document))


def versions(stage: OperatorStage) -> dict[str, str]:
    """Name -> resourceVersion of the object and all that is made for it."""
    kinds = ("lora", "jobs", "deployments", "services")
    found = [item["metadata"] for kind in kinds for item in stage.kubectl.items(kind)]
    return {m["uid"]: m["resourceVersion"] for m in found}


@pytest.mark.fault("F41")
def test_an_object_synced_again_and_again_is_never_written(stage: OperatorStage) -> None:
    settled = versions(stage)
    for _ in range(SYNCS):
        sync(stage)
    assert versions(stage) == settled
    diff = stage.kubectl("diff", *SYNC[1:], stdin=yaml.safe_dump(IN_GIT))
    assert diff == ""


def test_every_tool_finds_the_live_object_healthy(stage: OperatorStage) -> None:
    live = stage.object()
    assert in_argo_cd(live)["status"] == "Healthy"
    assert [in_flux(live), *by_kstatus(live)] == ["Current", "Current"]


def test_the_operator_owns_no_field_but_the_status(stage: OperatorStage) -> None:
    live = stage.kubectl("get", "lora", NAME, "-o", "yaml", "--show-managed-fields")
    managers = yaml.safe_load(live)["metadata"]["managedFields"]
    ours = [m for m in managers if m["manager"] != "argocd-controller"]
    assert [set(m["fieldsV1"]) for m in ours] == [{"f:status"}]


def test_another_managers_fields_survive_a_sync_and_start_nothing(stage: OperatorStage) -> None:
    jobs, served = stage.jobs(), stage.serves()
    stage.kubectl("annotate", "lora", NAME, "example.com/owner=ann")
    sync(stage)
    stage.wait_for("Ready", "True")
    assert stage.object()["metadata"]["annotations"]["example.com/owner"] == "ann"
    stage.stays(
        "no Job, no other release", lambda: (stage.jobs(), stage.serves()) == (jobs, served)
    )


@pytest.mark.fault("F40")
def test_a_replace_starts_nothing_and_drops_nothing(stage: OperatorStage) -> None:
    jobs, served, before = stage.jobs(), stage.serves(), stage.object()
    stage.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(IN_GIT))
    stage.wait_for("Ready", "True")
    after = stage.object()
    assert (after["metadata"]["uid"], after["status"]) == (
        before["metadata"]["uid"],
        before["status"],
    )
    stage.stays(
        "no Job, no other release", lambda: (stage.jobs(), stage.serves()) == (jobs, served)
    )


@pytest.mark.fault("F40")
def test_deleted_and_synced_again_it_serves_the_same_without_any_work(stage: OperatorStage) -> None:
    served, worked = stage.serves(), list(stage.stages.ran)
    stage.kubectl("delete", "lora", NAME, "--wait")
    stage.until("its Service is collected", lambda: stage.serves() == "")
    sync(stage)
    stage.wait_for("Ready", "True")
    assert stage.serves() == served
    assert stage.stages.ran == worked
