"""Profiles on a real API server: four lines become whole Jobs, and nothing is written into them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl import Kubectl, KubectlError
from localcluster.controlplane import ControlPlane
from lora_api.jobcontract import REQUEST_ENV, StageRequest
from lora_api.profile import PROFILES
from operator_stage import NAME, OperatorStage

pytestmark = pytest.mark.integration
EXAMPLES = Path(__file__).parents[2] / "examples"
VALUES: dict[str, Any] = yaml.safe_load((EXAMPLES / "profile-values.yaml").read_text())


def settings(profiles: dict[str, Any]) -> dict[str, str]:
    allowed = VALUES["allowed"]
    return {
        "PROFILES": json.dumps(profiles),
        "ALLOWED_IMAGES": ",".join(allowed["images"]),
        "ALLOWED_SERVICE_ACCOUNTS": ",".join(allowed["serviceAccounts"]),
        "ALLOWED_SECRETS": ",".join(allowed["secrets"]),
        "ALLOWED_ENDPOINTS": ",".join(allowed["endpoints"]),
    }


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    profiles = settings(VALUES["profiles"] | {"cpu": {}})
    with OperatorStage(control_plane, kubectl, tmp_path, **profiles) as running:
        yield running


def four_lines(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "profile.yaml").read_text())
    document["metadata"]["name"] = NAME
    document["spec"] |= changes
    return document


def job(stage: OperatorStage, name: str) -> dict[str, Any]:
    (found,) = stage.kubectl.items("jobs", f"lora-operator.dev/stage={name}")
    return found


def _uid(found: dict[str, Any]) -> str:
    return str(found["metadata"]["uid"])


def request_of(found: dict[str, Any]) -> StageRequest:
    (container,) = found["spec"]["template"]["spec"]["containers"]
    (text,) = (e["value"] for e in container["env"] if e["name"] == REQUEST_ENV)
    return StageRequest.model_validate_json(text)


def test_four_lines_reach_the_stages_with_what_the_profile_gave(
    stage: OperatorStage, control_plane: ControlPlane, tmp_path: Path
) -> None:
    stage.stages.held |= {"resolve", "quantize", "benchmark"}
    stage.kubectl.apply(four_lines())
    before = stage.object()["spec"]
    stage.until("resolve runs", lambda: "resolve" in stage.stages.asked)
    first = job(stage, "resolve")
    request = request_of(first)
    assert request.store.uri == "s3://models/lora"
    assert {c.name for c in request.connections} == {"models", "hub"}
    assert first["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    stage.stages.held.discard("resolve")
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    assert stage.object()["spec"] == before
    assert "artifact" not in before
    quantize = job(stage, "quantize")
    pod = quantize["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"]["memory"] == "64Gi"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in (
        pod["tolerations"]
    )
    digest = PROFILES.validate_python(VALUES["profiles"])["gpu"].digest
    assert stage.object()["status"]["profile"] == {"name": "gpu", "digest": digest}

    stage.operator.kill()
    changed = json.loads(json.dumps(VALUES["profiles"]))
    changed["gpu"]["jobs"]["defaults"]["labels"]["team"] = "sql"
    with stage.another_operator(control_plane, tmp_path / "next", **settings(changed)):
        stage.until("it is seen", lambda: stage.object()["status"]["profile"]["digest"] != digest)
        stage.stays("what runs goes on", lambda: _uid(job(stage, "quantize")) == _uid(quantize))
        stage.stages.held.discard("quantize")
        stage.until("benchmark runs", lambda: "benchmark" in stage.stages.asked)
    assert job(stage, "benchmark")["metadata"]["labels"]["team"] == "sql"
    assert stage.stages.ran == ["merge", "quantize", "evaluate"]


def test_an_unknown_profile_is_told_with_advice_and_cured_by_a_known_one(
    stage: OperatorStage,
) -> None:
    stage.kubectl.apply(four_lines(profile="gpus"))
    stage.wait_for("Ready", "False", "ProfileNotFound")
    message = stage.condition("Stalled")["message"]
    assert "spec.profile names gpus" in message
    assert "there are cpu, gpu" in message
    assert stage.jobs() == {}
    assert ("Warning", "ProfileNotFound") in stage.events()
    stage.kubectl.apply(four_lines(profile="cpu"))
    stage.wait_for("Ready", "False", "ArtifactMissing")
    stage.kubectl.apply(four_lines())
    stage.until("resolve runs", lambda: "resolve" in stage.stages.asked)


def test_the_server_refuses_an_object_without_a_place_and_without_a_profile(
    kubectl: Kubectl,
) -> None:
    document = four_lines()
    del document["spec"]["profile"]
    with pytest.raises(KubectlError, match="artifact is missing"):
        kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(document))


def test_an_object_with_connections_of_its_own_may_name_those_of_its_profile(
    kubectl: Kubectl,
) -> None:
    document = four_lines(
        connections=[{"name": "mine", "s3": {"endpoint": "https://mine.internal"}}]
    )
    sources = [{"uri": "s3://datasets/sql/calibration.jsonl", "connection": "models"}]
    document["spec"]["quantization"] = {"calibration": {"sources": sources}}
    strictly = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    assert "created" in kubectl(*strictly, stdin=yaml.safe_dump(document))
    del document["spec"]["profile"]
    document["spec"]["artifact"] = {"uri": "s3://models/lora"}
    with pytest.raises(KubectlError, match="not in connections"):
        kubectl(*strictly, stdin=yaml.safe_dump(document))
