"""Bad input on a real cluster: a reason and what to do, no stage, and the corrected world goes on.

What the API server itself refuses is in `tests/integration/test_api_admission.py`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo_object import demo_object
from lora import WORKING, Lora
from testbed import E2E_SECRET, Testbed
from tinyfiles import write_adapter, write_records, write_sources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
BUCKET = "e2e-bad-input"
Json = dict[str, Any]


@dataclass
class World:
    """One object's own sources in the bucket, its Secret and its namespace."""

    testbed: Testbed
    lora: Lora
    folder: Path
    document: Json = field(default_factory=dict)

    @property
    def spec(self) -> Json:
        spec: Json = self.document["spec"]
        return spec

    @property
    def prefix(self) -> str:
        return f"{os.getpid()}/{self.lora.name}"

    @property
    def secret(self) -> str:
        return str(self.spec["connections"][0]["s3"]["secretRef"]["name"])

    def upload(self, *names: str) -> None:
        """Copy sources from the folder to the bucket, all of them by default."""
        for name in names or ("base", "adapter", "calibration.jsonl", "task.jsonl"):
            self.testbed.upload(self.folder / name, BUCKET, f"{self.prefix}/{name}")

    def remove(self, key: str) -> None:
        self.testbed.s3().delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}")

    def apply(self) -> None:
        self.lora.kubectl.apply(self.document)

    def give_secret(self, name: str, secret_key: str = "") -> None:
        keys = {"AWS_ACCESS_KEY_ID": self.testbed.access_key,
                "AWS_SECRET_ACCESS_KEY": secret_key or self.testbed.secret_key}  # fmt: skip
        self.lora.kubectl.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys}
        )


@pytest.fixture(scope="module")
def namespace(testbed: Testbed) -> Iterator[str]:
    name = f"bad-input-{os.getpid()}"
    testbed.prepare_namespace(name, E2E_SECRET)
    yield name
    testbed.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def world(
    testbed: Testbed, namespace: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[World]:
    """All is right; a test breaks one thing of it before it applies the object."""
    name = request.node.callspec.params["name"]
    world = World(testbed, Lora(testbed.kubectl.within(namespace), name), tmp_path)
    write_sources(tmp_path)
    world.upload()
    place = f"s3://{BUCKET}/{world.prefix}"
    document = demo_object(testbed, name, f"{place}/store")
    document["spec"] |= {
        "baseModel": {"uri": f"{place}/base"},
        "adapters": [{"uri": f"{place}/adapter"}],
        "evaluation": {"task": {"uri": f"{place}/task.jsonl"}},
    }
    calibration = document["spec"]["quantization"]["calibration"]
    calibration["sources"] = [{"uri": f"{place}/calibration.jsonl"}]
    world.document = document
    yield world
    world.lora.kubectl("delete", "lora", name, "--ignore-not-found", "--wait=true")


Change = Callable[[World], None]


def _adapter_is_missing(world: World) -> None:
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        world.remove(f"adapter/{file}")


def _adapter_is_of_another_base(world: World) -> None:
    write_adapter(world.folder / "adapter", hidden=16)
    world.upload("adapter")


def _adapter_is_a_pickle(world: World) -> None:
    weights = world.folder / "adapter/adapter_model.safetensors"
    weights.rename(weights.with_name("adapter_model.bin"))
    world.remove("adapter/adapter_model.safetensors")
    world.upload("adapter")


def _right_adapter_is_there(world: World) -> None:
    world.remove("adapter/adapter_model.bin")
    (world.folder / "adapter/adapter_model.bin").unlink(missing_ok=True)
    write_adapter(world.folder / "adapter")
    world.upload("adapter")


def _calibration_is_empty(world: World) -> None:
    (world.folder / "calibration.jsonl").write_text("")
    world.upload("calibration.jsonl")


def _calibration_is_there(world: World) -> None:
    write_records(world.folder / "calibration.jsonl", "seen", "by quantization")
    world.upload("calibration.jsonl")


def _key_is_wrong(world: World) -> None:
    world.spec["evaluation"]["task"]["uri"] += ".typo"


def _key_is_right(world: World) -> None:
    task = world.spec["evaluation"]["task"]
    task["uri"] = task["uri"].removesuffix(".typo")
    world.apply()


def _bucket_is_missing(world: World) -> None:
    world.spec["artifact"]["uri"] = f"s3://{_new_bucket()}/store"


def _bucket_is_there(world: World) -> None:
    world.testbed.s3().create_bucket(Bucket=_new_bucket())


def _new_bucket() -> str:
    return f"e2e-created-later-{os.getpid()}"


def _no_such_secret(world: World) -> None:
    world.spec["connections"][0]["s3"]["secretRef"]["name"] = "created-later"


def _secret_is_there(world: World) -> None:
    world.give_secret("created-later")


def _secret_is_wrong(world: World) -> None:
    world.spec["connections"][0]["s3"]["secretRef"]["name"] = "corrected-later"
    world.give_secret("corrected-later", "not-the-secret")


def _secret_is_right(world: World) -> None:
    world.give_secret("corrected-later")


@pytest.mark.fault("F29")
@pytest.mark.parametrize(
    ("name", "broken", "reason", "advice", "correct"),
    [
        ("missing-adapter", _adapter_is_missing, "SourceNotFound",
         "upload", _right_adapter_is_there),
        ("another-base", _adapter_is_of_another_base, "AdapterMismatch",
         "base", _right_adapter_is_there),
        ("pickle-only", _adapter_is_a_pickle, "UnsafeFile",
         "safetensors", _right_adapter_is_there),
        ("empty-calibration", _calibration_is_empty, "EmptyDataset",
         "calibration", _calibration_is_there),
        ("wrong-key", _key_is_wrong, "SourceNotFound", "correct the URI", _key_is_right),
        ("missing-bucket", _bucket_is_missing, "BucketNotFound", "create", _bucket_is_there),
        ("no-secret", _no_such_secret, "CredentialsMissing", "create", _secret_is_there),
        ("wrong-secret", _secret_is_wrong, "AccessDenied", "Secret", _secret_is_right),
    ],
)  # fmt: skip
def test_bad_input_is_told_starts_no_stage_and_goes_on_once_it_is_corrected(
    world: World, name: str, broken: Change, reason: str, advice: str, correct: Change
) -> None:
    broken(world)
    world.apply()
    ready = world.lora.wait("Ready", "Unknown", reason=reason, seconds=120)
    assert advice in ready["message"]
    assert "not-the-secret" not in ready["message"]
    assert world.lora.jobs(*WORKING) == [], "nothing that would ask for a GPU was started"
    correct(world)
    world.lora.wait("Resolved", "True", seconds=120)
