"""`kubectl lora` with a real kubectl, API server and operator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from lora_api.jobcontract import Reason
from operator_stage import NAME, OperatorStage
from plugin import Plugin

pytestmark = pytest.mark.integration


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    with OperatorStage(control_plane, kubectl, tmp_path) as running:
        running.stages.prepared = True
        yield running


class Terminal:
    """A user's terminal beside the stage."""

    def __init__(self, stage: OperatorStage, folder: Path) -> None:
        folder.mkdir()
        self._plugin = Plugin.with_kubectl(folder, *stage.kubectl.command)
        self._where = [
            "--namespace", stage.kubectl.namespace, "--kubeconfig", str(stage.kubectl.kubeconfig),
        ]  # fmt: skip

    def __call__(self, verb: str, *words: str) -> dict[str, Any]:
        return self._plugin(verb, NAME, *words, *self._where)

    def story(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self("status", "-o", "json")["out"])
        return told


@pytest.fixture
def lora(stage: OperatorStage, tmp_path: Path) -> Terminal:
    return Terminal(stage, tmp_path / "terminal")


def test_a_run_is_followed_to_its_release_which_git_owns(
    stage: OperatorStage, lora: Terminal
) -> None:
    missing = lora("status")
    assert (missing["code"], missing["out"]) == (1, "")
    assert f'"{NAME}" not found' in missing["err"]
    stage.apply()
    stage.wait_for("Ready", "True")
    story = lora.story()
    assert (story["phase"], story["verdict"], story["nextSteps"]) == ("Serving", "Passed", [])
    assert lora("report")["out"].startswith("verdict  Passed")
    (release,) = json.loads(lora("releases", "-o", "json")["out"])
    assert (release["id"], release["serves"]) == (stage.serves(), True)

    stage.kubectl("label", "lora", NAME, "argocd.argoproj.io/instance=models")
    before = stage.object()
    refused = lora("suspend")
    assert (refused["code"], stage.object()) == (1, before)
    assert "Argo CD (models)" in refused["err"]
    # What it prints is what Git needs: as it is, it suspends and changes nothing else.
    patch = ("patch", "lora", NAME, "--type=merge", "--patch-file=/dev/stdin")
    stage.kubectl(*patch, stdin=refused["out"])
    assert stage.object()["spec"] == before["spec"] | {"suspend": True}


def test_what_waits_can_be_held_resumed_and_tried_again(
    stage: OperatorStage, lora: Terminal
) -> None:
    stage.stages.waiting["resolve"] = Reason.CREDENTIALS_MISSING
    stage.apply()
    stage.wait_for("Ready", "Unknown", "CredentialsMissing")
    assert "kubectl lora explain CredentialsMissing" in lora("status")["out"]
    # There is no node, so nobody has a log; between two attempts there is no pod to ask for one.
    stage.until("kubectl's failure is the plugin's", lambda: lora("logs", "resolve")["code"] == 1)

    assert lora("suspend")["code"] == 0
    stage.wait_for("Ready", "Unknown", "Suspended")
    assert lora.story()["nextSteps"] == [f"go on: kubectl lora resume {NAME}"]
    assert lora("resume")["code"] == 0
    stage.wait_for("Ready", "Unknown", "CredentialsMissing")

    stage.stages.waiting.clear()
    assert lora("retry")["code"] == 0
    stage.wait_for("Ready", "True")
    assert stage.object()["status"]["lastHandledRetry"]
