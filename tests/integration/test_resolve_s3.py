"""resolve against a real S3 server: access, buckets, keys, pins that hold, worlds that heal."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buckets import Bucket, make_bucket, write_secret
from localcluster.s3 import S3Server
from lora_api.jobcontract import CREDENTIALS_DIR_ENV, Reason, StageResult
from lora_jobs.errors import Waiting
from lora_jobs.inputs import StoreInputs
from lora_jobs.store.interface import ObjectStore
from lora_jobs.store.opening import open_store
from resolving import RESOLVE, requests_of, resolve
from tinyfiles import write_adapter, write_records, write_sources

pytestmark = pytest.mark.integration
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


class World:
    """A bucket with sources, a Secret, and a spec that names them."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.bucket: Bucket = make_bucket(server, f"models-{next(NUMBERS)}")
        self.sources = write_sources(folder / "sources")
        self.upload()
        self.secrets = folder / "secrets"
        self.work = folder / "work"
        self.give_secret()
        name = self.bucket.name
        self.spec: dict[str, Any] = {
            "connections": [self.bucket.connection().to_json()],
            "baseModel": {"uri": f"s3://{name}/in/base"},
            "adapters": [{"uri": f"s3://{name}/in/adapter"}],
            "quantization": {
                "calibration": {"sources": [{"uri": f"s3://{name}/in/calibration.jsonl"}]}
            },
            "evaluation": {"task": {"uri": f"s3://{name}/in/task.jsonl"}},
            "artifact": {"uri": f"s3://{name}/store", "connection": "models"},
        }

    def upload(self) -> None:
        self.bucket.upload_folder(self.sources, "in")

    def give_secret(self, secret_key: str = "") -> None:
        server = self.bucket.server
        write_secret(self.secrets, "models", server.access_key, secret_key or server.secret_key)

    def connect(self, **settings: Any) -> None:
        self.spec["connections"][0]["s3"] |= settings

    def resolve(self) -> StageResult:
        return resolve(self.spec, self.work)

    def refused(self) -> Waiting:
        with pytest.raises(Waiting) as caught:
            self.resolve()
        assert self.bucket.server.secret_key not in str(caught.value), "no message tells a secret"
        return caught.value

    @property
    def store(self) -> ObjectStore:
        requests = requests_of(self.spec)
        return open_store(requests.store, requests.resolve(RESOLVE, "").connections)


@pytest.fixture
def world(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(server, tmp_path)
    monkeypatch.setenv(CREDENTIALS_DIR_ENV, str(world.secrets))
    return world


def test_sources_in_a_bucket_are_pinned_and_fetched_as_pinned(world: World) -> None:
    result = world.resolve()
    request = (
        requests_of(world.spec).resolve(RESOLVE, "").model_copy(update={"sources": result.pins})
    )
    inputs = StoreInputs(request, world.store, world.work / "inputs", lambda _: None)
    for name, original in [("base", "base"), ("adapter0", "adapter")]:
        for file in (world.sources / original).iterdir():
            assert (inputs.source(name) / file.name).read_bytes() == file.read_bytes()
    assert [f.name for f in inputs.source("task").iterdir()] == ["task.jsonl"]


def test_a_missing_secret_waits_and_is_cured_by_the_secret_alone(world: World) -> None:
    (world.secrets / "models" / "AWS_SECRET_ACCESS_KEY").unlink()
    refusal = world.refused()
    assert refusal.reason is Reason.CREDENTIALS_MISSING
    assert 'Secret "models-s3" of connection "models"' in str(refusal)
    assert "AWS_SECRET_ACCESS_KEY; create it" in str(refusal)
    world.give_secret()
    assert world.resolve().pins


def test_an_engine_without_an_image_is_told_with_both_ways_to_give_one(world: World) -> None:
    with pytest.raises(Waiting) as caught:
        resolve(world.spec, world.work, default_image="")
    assert "no default image for runtime VLLM" in str(caught.value)
    assert "set spec.serving.image" in str(caught.value)
    assert "the chart's images.serving.VLLM" in str(caught.value)


def test_a_wrong_secret_is_access_denied_until_it_is_right(world: World) -> None:
    world.give_secret("not-the-secret")
    refusal = world.refused()
    assert refusal.reason is Reason.ACCESS_DENIED
    assert "SignatureDoesNotMatch" in str(refusal) or "(403)" in str(refusal)
    assert "not-the-secret" not in str(refusal)
    world.give_secret()
    assert world.resolve().pins


def test_an_unknown_access_key_is_access_denied(world: World) -> None:
    write_secret(world.secrets, "models", "nobody", "nothing-secret")
    assert world.refused().reason is Reason.ACCESS_DENIED


def test_a_missing_store_bucket_waits_until_it_is_created(world: World) -> None:
    absent = f"absent-{next(NUMBERS)}"
    world.spec["artifact"]["uri"] = f"s3://{absent}/store"
    refusal = world.refused()
    assert refusal.reason is Reason.BUCKET_NOT_FOUND
    assert f"bucket {absent} does not exist at {world.bucket.server.endpoint}" in str(refusal)
    make_bucket(world.bucket.server, absent)
    assert world.resolve().pins


def test_a_missing_source_bucket_is_named(world: World) -> None:
    world.spec["baseModel"]["uri"] = "s3://no-such-bucket/base"
    refusal = world.refused()
    assert refusal.reason is Reason.BUCKET_NOT_FOUND
    assert "no-such-bucket" in str(refusal)


def test_a_wrong_key_waits_until_something_is_there(world: World) -> None:
    world.spec["evaluation"]["task"]["uri"] = f"s3://{world.bucket.name}/in/heldout.jsonl"
    refusal = world.refused()
    assert refusal.reason is Reason.SOURCE_NOT_FOUND
    assert "in/heldout.jsonl; upload the data set there or correct the URI" in str(refusal)
    write_records(world.sources / "heldout.jsonl", "here", "now")
    world.upload()
    assert world.resolve().pins


def test_an_endpoint_that_does_not_answer_is_unreachable(world: World) -> None:
    world.connect(endpoint="http://127.0.0.1:9")
    refusal = world.refused()
    assert refusal.reason is Reason.STORE_UNREACHABLE
    assert "no answer from http://127.0.0.1:9" in str(refusal)


def test_a_mismatched_adapter_is_not_pinned_so_that_it_can_be_replaced(world: World) -> None:
    write_adapter(world.sources / "adapter", hidden=16)
    world.upload()
    assert world.refused().reason is Reason.ADAPTER_MISMATCH
    write_adapter(world.sources / "adapter")
    world.upload()
    assert world.resolve().pins


@pytest.mark.fault("F35")
def test_a_pinned_source_that_changed_waits_and_refresh_takes_it(world: World) -> None:
    before = world.resolve().pins
    write_records(world.sources / "task.jsonl", "other", "words")
    world.upload()
    refusal = world.refused()
    assert refusal.reason is Reason.SOURCE_CHANGED
    assert "set spec.refresh" in str(refusal)
    world.spec["refresh"] = "once more"
    after = world.resolve().pins
    assert after["task"].digest != before["task"].digest
    assert after["base"].digest == before["base"].digest


def test_the_first_image_is_pinned_and_a_new_default_changes_nothing(world: World) -> None:
    assert resolve(world.spec, world.work, "engine:1").image == "engine:1"
    assert resolve(world.spec, world.work, "engine:2").image == "engine:1"
    world.spec["serving"] = {"image": "mine:3"}
    assert resolve(world.spec, world.work, "engine:2").image == "mine:3"


def test_workload_identity_needs_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    server = world.bucket.server
    del world.spec["connections"][0]["s3"]["secretRef"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    assert world.resolve().pins


def test_no_credentials_at_all_is_told_as_such(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.spec["connections"][0]["s3"]["secretRef"]
    world.connect(region="elsewhere")  # a client of its own: one is kept per connection
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "absent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "absent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    refusal = world.refused()
    assert refusal.reason is Reason.CREDENTIALS_MISSING
    assert "secretRef" in str(refusal)
