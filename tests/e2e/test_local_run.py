"""examples/local.yaml as the README runs it: real stages as processes, no cluster, no root."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import tiny_model
from testbed import REPOSITORY

pytestmark = [pytest.mark.model, pytest.mark.timeout(1500)]
COMPLETE = """
import sys
from gptqmodel import GPTQModel
from transformers import AutoTokenizer
folder, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(prompt, return_tensors="pt")
model = GPTQModel.load(folder, device="cpu")
ids = model.generate(input_ids=inputs["input_ids"], max_new_tokens=16, do_sample=False)[0]
print("COMPLETION", repr(tokenizer.decode(ids[inputs["input_ids"].shape[1]:])))
"""


@dataclass(frozen=True)
class Checkout:
    """What a user has: the example, and the model beside it as `make tiny-model` leaves it."""

    folder: Path

    @property
    def example(self) -> Path:
        return self.folder / "examples/local.yaml"

    def run(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "lora_jobs", "run", "examples/local.yaml", "--store",
             "out/store"],
            cwd=self.folder, text=True, capture_output=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    (checkout.folder / "examples").mkdir()
    (checkout.folder / "out").mkdir()
    checkout.example.write_text((REPOSITORY / "examples/local.yaml").read_text())
    (checkout.folder / "out/tiny-model").symlink_to(tiny_model.ensure().folder)
    return checkout


def test_a_good_adapter_passes_and_its_four_conditions_are_printed(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("base", "dynamic", "merged", "quantized", "Passed"):
        assert word in done.stdout


def test_the_published_artifact_completes_a_prompt(checkout: Checkout) -> None:
    [release] = (checkout.folder / "out/store/local/releases/local").glob("*.json")
    folder = checkout.folder / "out/store/local/artifacts" / _artifact_of(release)
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE, str(folder), "def read_lines(path):\n    "],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    completion = done.stdout.partition("COMPLETION ")[2].strip()
    assert len(completion) > 8


def test_a_second_run_repeats_no_stage(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 0
    assert "No stage ran again" in done.stdout


def test_the_wrong_adapter_is_stopped_by_a_gate(checkout: Checkout) -> None:
    text = checkout.example.read_text()
    checkout.example.write_text(text.replace("/tiny-model/adapter", "/tiny-model/wrong-adapter"))
    done = checkout.run()
    assert done.returncode == 1
    assert "gainRetained" in done.stdout
    assert "Failed" in done.stdout
    assert len(list((checkout.folder / "out/store/local/releases/local").glob("*.json"))) == 1


def _artifact_of(release: Path) -> str:
    artifact: str = json.loads(release.read_text())["release"]["artifact"]
    return artifact.replace(":", "-")
