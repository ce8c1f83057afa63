"""Faults of network and server: a manifest only where all is there, and a rerun ends well."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.compat
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from buckets import make_bucket
from localcluster.s3 import S3Server
from lora_api import layout
from lora_api.connections import S3Connection
from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.store import downloads, hashing, s3, transfers
from lora_jobs.store.artifacts import (
    fetch_artifact,
    has_artifact,
    hash_folder,
    publish_artifact,
)
from lora_jobs.store.hashing import hash_file
from lora_jobs.store.interface import STALE_SECONDS
from lora_jobs.store.patient import PatientStore
from lora_jobs.store.resuming import set_done
from lora_jobs.store.s3 import S3Store, _client, open_s3
from seaweedfs import SeaweedFS
from toxiproxy import Toxiproxy

pytestmark = pytest.mark.integration
MIB = 2**20
PART = 8 * MIB
"""In place of 64 MiB; S3 takes no parts below 5."""
NUMBERS = itertools.count()
Server = S3Server | SeaweedFS
"""Two families of servers: what one of them forgives, the other may not."""


def never(seconds: float) -> None:
    pytest.fail("waited for what no waiting cures")


@pytest.fixture(scope="module", params=[S3Server, SeaweedFS], ids=["versitygw", "seaweedfs"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with request.param(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    with Toxiproxy(tmp_path_factory.mktemp("toxi"), f"127.0.0.1:{server.port}") as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small parts, and clients of each test's own."""
    for module in (hashing, transfers):
        monkeypatch.setattr(module, "PART_BYTES", PART)
    monkeypatch.setattr(downloads, "RANGE_BYTES", PART)
    _client.cache_clear()
    yield
    _client.cache_clear()


def hasty(**settings: Any) -> Config:
    """Clients that give a black hole three seconds and not sixty."""
    times: dict[str, Any] = {"connect_timeout": 3, "read_timeout": 3}
    return Config(**(settings | times | {"retries": {"mode": "standard", "max_attempts": 2}}))


class World:
    """A place in a bucket behind the proxy, and the same one directly."""

    def __init__(self, server: Server, proxy: Toxiproxy, folder: Path, bucket: str) -> None:
        self.proxy, self.folder = proxy, folder
        self.keys = {
            "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }  # fmt: skip
        self.bucket, self.prefix = bucket, f"place-{next(NUMBERS)}"
        directly = S3Connection(endpoint=server.endpoint)
        self.direct = open_s3(bucket, self.prefix, directly, self.keys)
        self.store = self.opened(self.keys)
        self.model = folder / "model"
        self.model.mkdir()
        (self.model / "config.json").write_bytes(b"{}")
        (self.model / "model.safetensors").write_bytes(bytes(range(256)) * (20 * MIB // 256))
        self.digest = hash_folder(self.model).digest

    def opened(self, keys: dict[str, str]) -> S3Store:
        through = S3Connection(endpoint=self.proxy.endpoint)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(s3, "Config", hasty)
            return open_s3(self.bucket, self.prefix, through, keys)

    def uploads(self) -> list[Any]:
        """What was begun in parts and not ended."""
        listed = self.direct.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return list(listed.get("Uploads", []))

    def has_manifest(self) -> bool:
        return self.direct.head(layout.manifest(self.digest)) is not None

    def converges(self) -> None:
        assert publish_artifact(self.direct, self.model) == self.digest
        assert has_artifact(self.direct, self.digest)


@pytest.fixture(scope="module")
def bucket(server: Server) -> str:
    """One for all: SeaweedFS takes seconds to make one."""
    return make_bucket(server, "faults").name


@pytest.fixture
def world(server: Server, proxy: Toxiproxy, bucket: str, tmp_path: Path) -> World:
    proxy.heal()
    return World(server, proxy, tmp_path, bucket)


CUTS: dict[str, tuple[str, str, dict[str, int]]] = {
    "cut in the middle of a part": ("limit_data", "upstream", {"bytes": 3 * MIB}),
    "reset by the peer": ("reset_peer", "upstream", {"timeout": 1}),
    "a black hole": ("timeout", "upstream", {"timeout": 0}),
    "every reply lost": ("timeout", "downstream", {"timeout": 0}),
}


@pytest.mark.fault("F33")
@pytest.mark.parametrize("kind", CUTS)
def test_an_upload_that_fails_leaves_no_manifest_and_a_rerun_converges(
    world: World, kind: str
) -> None:
    toxic, stream, attributes = CUTS[kind]
    with world.proxy.fault(toxic, stream, **attributes), pytest.raises(Waiting) as caught:
        publish_artifact(world.store, world.model)
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert not world.has_manifest()
    world.converges()


@pytest.mark.parametrize("kind", ["cut in the middle of a part", "a black hole"])
def test_a_fault_that_passes_is_waited_for(world: World, kind: str) -> None:
    """The sleep between two attempts is where the network heals."""
    toxic, stream, attributes = CUTS[kind]
    patient = PatientStore(world.store, sleep=lambda _: world.proxy.heal())
    with world.proxy.fault(toxic, stream, **attributes):
        assert publish_artifact(patient, world.model) == world.digest
    assert has_artifact(world.direct, world.digest)


@pytest.mark.fault("F33")
def test_a_document_whose_reply_was_lost_is_ours(world: World) -> None:
    patient = PatientStore(world.store, sleep=lambda _: world.proxy.heal())
    with world.proxy.fault("limit_data", "downstream", bytes=26):  # `100 Continue` and no more
        assert patient.create("entry", b"ours")
    content = world.direct.read("entry")
    assert content is not None
    assert content.data == b"ours"


@pytest.mark.fault("F33")
def test_a_slow_link_is_slow_and_nothing_else(world: World) -> None:
    with world.proxy.fault("bandwidth", "upstream", rate=8000):
        publish_artifact(world.store, world.model)
    assert has_artifact(world.direct, world.digest)


@pytest.mark.fault("F33")
def test_a_link_of_10_kb_a_second_takes_small_files_and_gives_up_on_large_ones(
    world: World,
) -> None:
    """Here after three seconds without an answer, else after a minute."""
    small = world.folder / "small"
    small.mkdir()
    (small / "config.json").write_bytes(b"x" * 8_000)
    with world.proxy.fault("bandwidth", "upstream", rate=10):
        digest = publish_artifact(world.store, small)
        with pytest.raises(Waiting) as caught:
            publish_artifact(world.store, world.model)
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert has_artifact(world.direct, digest)
    assert not world.has_manifest()
    world.converges()


def test_a_download_whose_every_connection_is_cut_goes_on_where_each_ended(world: World) -> None:
    world.converges()
    with world.proxy.fault("limit_data", "downstream", bytes=7 * MIB):
        fetch_artifact(world.store, world.digest, world.folder / "fetched")
    assert hash_folder(world.folder / "fetched").digest == world.digest


def test_a_download_that_fails_never_becomes_a_folder_and_a_rerun_does(world: World) -> None:
    world.converges()
    with (
        world.proxy.fault("limit_data", "downstream", bytes=4000),
        pytest.raises(Waiting) as caught,
    ):
        fetch_artifact(world.store, world.digest, world.folder / "fetched")
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert not (world.folder / "fetched").exists()
    fetch_artifact(world.store, world.digest, world.folder / "fetched")
    assert hash_folder(world.folder / "fetched").digest == world.digest


def test_what_is_there_of_an_interrupted_download_is_not_asked_for_again(world: World) -> None:
    world.converges()
    key = f"{layout.artifact(world.digest)}/model.safetensors"
    found = world.direct.head(key)
    assert found is not None
    file = world.folder / "part"
    file.write_bytes((world.model / "model.safetensors").read_bytes()[:PART])
    set_done(file, found.etag, PART)
    asked: list[str] = []
    client = world.direct._transferring
    client.meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: asked.append(params["headers"]["Range"])
    )
    sha256 = world.direct.download(key, file)
    assert sha256 == hash_file(world.model / "model.safetensors").sha256
    assert sorted(asked) == ["bytes=16777216-20971519", "bytes=8388608-16777215"]


def test_a_wrong_beginning_is_found_out_and_fetched_anew(world: World) -> None:
    world.converges()
    place = world.folder / ".incoming-fetched"
    place.mkdir()
    found = world.direct.head(f"{layout.artifact(world.digest)}/model.safetensors")
    assert found is not None
    (place / "model.safetensors").write_bytes(b"x" * PART)
    set_done(place / "model.safetensors", found.etag, PART)
    with pytest.raises(Waiting, match="sha256 is"):
        fetch_artifact(world.direct, world.digest, world.folder / "fetched")
    fetch_artifact(world.direct, world.digest, world.folder / "fetched")
    assert hash_folder(world.folder / "fetched").digest == world.digest


@pytest.mark.fault("F34")
def test_an_object_that_is_corrupted_afterwards_is_no_artifact_and_is_repaired(
    world: World,
) -> None:
    world.converges()
    other = world.folder / "other"
    data = bytearray((world.model / "model.safetensors").read_bytes())
    data[7 * MIB] ^= 1
    other.write_bytes(data)
    world.direct.upload(f"{layout.artifact(world.digest)}/model.safetensors", other)
    assert not has_artifact(world.direct, world.digest)
    with pytest.raises(Waiting, match="sha256 is"):
        fetch_artifact(world.direct, world.digest, world.folder / "fetched")
    world.converges()


def test_a_file_that_changed_since_it_was_hashed_is_refused_by_the_server(world: World) -> None:
    from botocore.exceptions import ClientError

    known = hash_file(world.model / "model.safetensors")
    with (world.model / "model.safetensors").open("r+b") as stream:
        stream.write(b"other")
    with pytest.raises(ClientError, match=r"BadDigest|checksum"):
        publish_artifact(world.direct, world.model, known={"model.safetensors": known})
    assert not [o for o in world.direct.list() if o.key.endswith("manifest.json")]


@pytest.mark.fault("F33")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda keys: keys | {"AWS_SECRET_ACCESS_KEY": "wrong-secret-key"}, Reason.ACCESS_DENIED),
        (lambda keys: keys | {"AWS_ACCESS_KEY_ID": "EXPIRED"}, Reason.ACCESS_DENIED),
    ],
    ids=["a wrong secret", "a key that is no more"],
)
def test_keys_that_are_refused_are_told_without_a_key_and_not_waited_for(
    world: World,
    spoil: Callable[[dict[str, str]], dict[str, str]],
    reason: Reason,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    keys = spoil(world.keys)
    with pytest.raises(Waiting) as caught:
        publish_artifact(PatientStore(world.opened(keys), sleep=never), world.model)
    assert caught.value.reason is reason
    for secret in keys.values():
        assert secret not in str(caught.value) + caplog.text
    assert not world.has_manifest()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_is_told_as_that(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Also where a HEAD is refused, whose answer has no body that could say it."""
    seconds = hours * 3600
    signing, telling = botocore.compat.get_current_datetime, time.time
    with monkeypatch.context() as patched:
        patched.setattr(
            "botocore.auth.get_current_datetime", lambda: signing() + timedelta(seconds=seconds)
        )
        patched.setattr(time, "time", lambda: telling() + seconds)
        patient = PatientStore(world.store, sleep=never)
        for attempt in (patient.check, lambda: publish_artifact(patient, world.model)):
            with pytest.raises(Waiting, match=r"clocks .* (1:00:|0:59:).* synchronise") as caught:
                attempt()
            assert caught.value.reason is Reason.ACCESS_DENIED
    assert not world.has_manifest()


@pytest.mark.parametrize(
    ("operation", "code"), [("HeadObject", "400"), ("PutObject", "ExpiredToken")]
)
def test_an_expired_token_is_told_as_that(world: World, operation: str, code: str) -> None:
    """No server that runs here issues tokens: the client is told what AWS answers."""
    refused = ClientError({"Error": {"Code": code}}, operation)

    def expire(**_: Any) -> None:
        raise refused

    events = world.direct.client.meta.events
    events.register(f"before-call.s3.{operation}", expire)
    try:
        with pytest.raises(Waiting, match="token has expired; give") as caught:
            publish_artifact(PatientStore(world.direct, sleep=never), world.model)
    finally:
        events.unregister(f"before-call.s3.{operation}", expire)
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert not world.has_manifest()
    world.converges()


@pytest.mark.fault("F34")
def test_a_bucket_that_is_gone_is_told(server: Server, proxy: Toxiproxy, tmp_path: Path) -> None:
    proxy.heal()
    world = World(server, proxy, tmp_path, make_bucket(server, "soon-gone").name)
    world.direct.client.delete_bucket(Bucket=world.bucket)
    with pytest.raises(Waiting) as caught:
        publish_artifact(PatientStore(world.store, sleep=never), world.model)
    assert caught.value.reason is Reason.BUCKET_NOT_FOUND


def test_an_upload_that_fails_leaves_no_parts(world: World) -> None:
    file = world.model / "model.safetensors"
    known = hash_file(file)
    file.write_bytes(b"x" * known.size)
    with pytest.raises(Exception, match=r"BadDigest|checksum"):
        world.direct.upload("big", file, known=known)
    assert not world.uploads()


def test_parts_of_a_killed_upload_are_removed_a_day_later(world: World) -> None:
    client = world.direct.client
    begun = client.create_multipart_upload(Bucket=world.bucket, Key=f"{world.prefix}/artifacts/x")
    [upload] = world.uploads()
    started = upload["Initiated"].timestamp()
    assert world.direct.remove_stale(started + STALE_SECONDS - 60) == 0
    assert world.direct.remove_stale(started + STALE_SECONDS + 60) == 1
    assert begun["UploadId"]
    assert not world.uploads()


def test_a_server_without_checksums_is_sent_none_and_what_is_stored_is_right(
    world: World, server: Server
) -> None:
    connection = S3Connection.model_validate(
        {"endpoint": server.endpoint, "checksums": "WhenRequired"}
    )
    plain = open_s3(world.bucket, f"{world.prefix}/plain", connection, world.keys)
    sent: list[str] = []
    plain._transferring.meta.events.register(
        "before-send.s3", lambda request, **_: sent.extend(request.headers)
    )
    digest = publish_artifact(plain, world.model)
    assert not [name for name in sent if name.lower().startswith("x-amz-checksum-")]
    fetch_artifact(plain, digest, world.folder / "fetched")
    assert digest == world.digest
