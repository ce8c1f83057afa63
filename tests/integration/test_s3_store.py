"""What only a real S3 server can show: checksums, TLS, cut credentials, outages, busy servers."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buckets import make_bucket
from localcluster.s3 import S3Server
from lora_api.connections import Connection, S3Connection
from lora_api.jobcontract import AUTHORITIES_DIR_ENV, CREDENTIALS_DIR_ENV, Reason
from lora_jobs.errors import Waiting
from lora_jobs.store.artifacts import (
    fetch_artifact,
    has_artifact,
    hash_folder,
    publish_artifact,
)
from lora_jobs.store.hashing import hash_file
from lora_jobs.store.opening import open_place
from lora_jobs.store.s3 import S3Store, open_s3
from mergefiles import write_base
from seaweedfs import SeaweedFS
from tinycertificate import write_certificate

pytestmark = pytest.mark.integration
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def open_bucket(server: S3Server) -> S3Store:
    bucket = make_bucket(server, f"bucket-{next(NUMBERS)}")
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    return open_s3(bucket.name, "prefix", S3Connection(endpoint=server.endpoint), keys)


def model(folder: Path, files: int = 2, size: int = 1000) -> Path:
    folder.mkdir()
    for number in range(files):
        (folder / f"model-{number}.safetensors").write_bytes(bytes([number]) * size)
    return folder


def test_the_server_keeps_a_checksum_and_other_bytes_of_the_same_size_are_noticed(
    server: S3Server, tmp_path: Path
) -> None:
    store = open_bucket(server)
    digest = publish_artifact(store, model(tmp_path / "made"))
    assert has_artifact(store, digest)
    other = tmp_path / "other"
    other.write_bytes(b"x" * 1000)
    store.upload(f"artifacts/{digest.replace(':', '-')}/model-0.safetensors", other)
    assert not has_artifact(store, digest)


def test_publishing_repairs_a_damaged_object(server: S3Server, tmp_path: Path) -> None:
    store = open_bucket(server)
    digest = publish_artifact(store, model(tmp_path / "made"))
    other = tmp_path / "other"
    other.write_bytes(b"x" * 1000)
    store.upload(f"artifacts/{digest.replace(':', '-')}/model-0.safetensors", other)
    assert publish_artifact(store, tmp_path / "made") == digest
    fetch_artifact(store, digest, tmp_path / "fetched")


def test_an_object_without_our_checksum_counts_by_its_size(
    server: S3Server, tmp_path: Path
) -> None:
    store = open_bucket(server)
    store.write("copied", b"by another tool")
    file = tmp_path / "copied"
    file.write_bytes(b"by another tool")
    assert store.is_stored("copied", hash_file(file))


@pytest.mark.parametrize("kind", [S3Server, SeaweedFS], ids=["versitygw", "seaweedfs"])
def test_over_tls_it_is_the_same_and_a_refused_write_spoils_no_later_one(
    kind: type[S3Server] | type[SeaweedFS], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "s3").mkdir()
    with kind(tmp_path / "s3", tls=(certificate, key)) as server:
        s3 = {"endpoint": server.endpoint, "secretRef": {"name": "keys"},
              "caBundle": {"configMapName": "internal-ca"}}  # fmt: skip
        files = {
            "connections/tls/AWS_ACCESS_KEY_ID": server.access_key,
            "connections/tls/AWS_SECRET_ACCESS_KEY": server.secret_key,
            "authorities/tls/ca.crt": certificate.read_text(),
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        monkeypatch.setenv(CREDENTIALS_DIR_ENV, str(tmp_path / "connections"))
        monkeypatch.setenv(AUTHORITIES_DIR_ENV, str(tmp_path / "authorities"))
        connection = Connection.model_validate({"name": "tls", "s3": s3})
        store = open_place("s3://over-tls/prefix", connection)
        assert isinstance(store, S3Store)
        store.client.create_bucket(Bucket="over-tls")
        digest = publish_artifact(store, model(tmp_path / "made"))
        assert has_artifact(store, digest)
        fetch_artifact(store, digest, tmp_path / "fetched")
        assert store.create("once", b"1")
        # With checksums in trailers some 3 in 100 of these were answered with 400.
        assert not any(store.create("once", b"2") for _ in range(200))


def test_by_hand_a_model_goes_to_a_bucket_and_back_with_keys_from_the_environment(
    server: S3Server, tmp_path: Path
) -> None:
    bucket = make_bucket(server, f"bucket-{next(NUMBERS)}")
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}

    def lora_jobs(*words: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "lora_jobs", *words, "--endpoint", server.endpoint],
            env=os.environ | keys, text=True, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert server.secret_key not in ended.stdout + ended.stderr
        return ended.stdout.strip()

    place, base = f"s3://{bucket.name}/models", write_base(tmp_path / "base")
    digest = lora_jobs("publish", str(base), place)
    fetched = str(tmp_path / "fetched")
    lora_jobs("fetch", "--store", place, "--digest", digest, "--output", fetched)
    assert hash_folder(tmp_path / "fetched").digest == digest == hash_folder(base).digest


def test_an_untrusted_certificate_is_unreachable_and_says_so(
    tmp_path: Path,
) -> None:
    with S3Server(tmp_path / "s3", tls=write_certificate(tmp_path)) as server:
        store = open_s3("any", "", S3Connection(endpoint=server.endpoint), {
            "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": "x"})  # fmt: skip
        with pytest.raises(Waiting, match=r"SSLError.*caBundle") as caught:
            store.check()
        assert caught.value.reason is Reason.STORE_UNREACHABLE


def test_a_server_that_dies_makes_us_wait_and_what_was_stored_is_there_when_it_is_back(
    tmp_path: Path,
) -> None:
    with S3Server(tmp_path / "s3") as server:
        store = open_bucket(server)
        digest = publish_artifact(store, model(tmp_path / "made"))
        server.process.kill()
        with pytest.raises(Waiting) as caught:
            has_artifact(store, digest)
        assert caught.value.reason is Reason.STORE_UNREACHABLE
        server.start()
        assert has_artifact(store, digest)


@pytest.mark.fault("F33")
def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    with S3Server(tmp_path / "s3", max_requests=2) as server:
        store = open_bucket(server)
        digest = publish_artifact(store, model(tmp_path / "made", files=24, size=200_000))
        fetch_artifact(store, digest, tmp_path / "fetched")


KILLED = """
import os, sys
from pathlib import Path
from lora_api.connections import S3Connection
from lora_jobs.store import artifacts
from lora_jobs.store.s3 import open_s3
endpoint, access, secret, bucket, folder = sys.argv[1:]
store = open_s3(bucket, "prefix", S3Connection(endpoint=endpoint),
                {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret})
seen = []
def done(size):
    seen.append(size)
    if len(seen) == 2:
        os.kill(os.getpid(), 9)
artifacts.publish_artifact(store, Path(folder), done)
"""


@pytest.mark.fault("F23")
def test_a_publisher_killed_between_files_leaves_no_artifact_and_the_next_one_completes_it(
    server: S3Server, tmp_path: Path
) -> None:
    store = open_bucket(server)
    folder = model(tmp_path / "made", files=6)
    arguments: list[Any] = [
        server.endpoint, server.access_key, server.secret_key, store.bucket, str(folder),
    ]  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert ended.returncode == -9
    left = [o.key for o in store.list()]
    assert left
    assert not [key for key in left if key.endswith("manifest.json")]
    digest = publish_artifact(store, folder)
    assert has_artifact(store, digest)
