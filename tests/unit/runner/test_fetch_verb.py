"""`lora-jobs fetch`: what a serving pod's init container runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_api.jobcontract import StageFailure, parse_outcome
from lora_jobs.store.artifacts import publish_artifact
from lora_jobs.store.directory import DirectoryStore


def fetch(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lora_jobs", "fetch", *options],
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"a": 1}))
        (model / "model.safetensors").write_bytes(b"weights")
        self.store = DirectoryStore(folder / "store")
        self.digest = publish_artifact(self.store.below("team"), model)
        self.output = folder / "volume" / "model"

    def fetch(self, digest: str = "") -> "subprocess.CompletedProcess[str]":
        return fetch(
            "--store", str(self.store.root), "--scope", "team",
            "--digest", digest or self.digest, "--output", str(self.output),
        )  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_model_is_fetched_and_verified(scene: Scene) -> None:
    ended = scene.fetch()
    assert ended.returncode == 0, ended.stderr
    assert (scene.output / "model.safetensors").read_bytes() == b"weights"


def test_a_pod_restarts_while_the_store_is_down(scene: Scene) -> None:
    scene.fetch()
    shutil.rmtree(scene.store.root)
    ended = scene.fetch()
    assert ended.returncode == 0, ended.stderr
    assert "verified" in ended.stdout


@pytest.mark.fault("F34")
def test_a_spoiled_volume_is_not_served_but_filled_again(scene: Scene) -> None:
    scene.fetch()
    (scene.output / "model.safetensors").write_bytes(b"Weights")
    assert scene.fetch().returncode == 0
    assert (scene.output / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.fault("F34")
def test_damage_in_the_store_ends_with_3_and_no_folder(scene: Scene) -> None:
    place = scene.store.root / "team/artifacts" / scene.digest.replace(":", "-")
    (place / "model.safetensors").write_bytes(b"Weights")
    ended = scene.fetch()
    assert ended.returncode == 3
    assert ended.stderr.startswith("DigestMismatch: ")
    assert ended.stderr.count("\n") == 1
    assert not scene.output.exists()


def test_a_pod_tells_the_operator_why_it_has_no_model(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scene.folder / "termination-log"
    monkeypatch.setenv("LORA_STAGE_RESULT", str(told))
    assert scene.fetch("sha256:" + "0" * 64).returncode == 3
    outcome = parse_outcome(told.read_text())
    assert isinstance(outcome, StageFailure)
    assert "no manifest" in outcome.message


def test_an_unknown_digest_ends_with_3(scene: Scene) -> None:
    ended = scene.fetch("sha256:" + "0" * 64)
    assert ended.returncode == 3
    assert "no manifest" in ended.stderr


@pytest.mark.parametrize("digest", ["", "abc", "sha256:abc", "0" * 64])
def test_what_is_no_digest_is_a_usage_error(scene: Scene, digest: str) -> None:
    ended = fetch("--store", str(scene.store.root), "--digest", digest, "--output", "x")
    assert ended.returncode == 64
    assert "hexadecimal" in ended.stderr


def test_without_a_store_it_is_a_usage_error(tmp_path: Path) -> None:
    ended = fetch("--digest", "sha256:" + "0" * 64, "--output", str(tmp_path / "x"))
    assert ended.returncode == 64
