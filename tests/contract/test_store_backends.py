"""The promises of `ObjectStore`, on a folder and on two real S3 servers alike."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from buckets import make_bucket
from localcluster.s3 import S3Server
from lora_api import layout
from lora_api.connections import S3Connection
from lora_api.digests import FileDigest, artifact_digest
from lora_api.jobcontract import Stage
from lora_jobs.collecting import filed_releases
from lora_jobs.errors import StageError
from lora_jobs.stages import collect
from lora_jobs.store.artifacts import (
    fetch_artifact,
    has_artifact,
    hash_folder,
    publish_artifact,
)
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.hashing import PART_BYTES, hash_file
from lora_jobs.store.interface import ObjectChanged, ObjectMissing, ObjectStore
from releasebucket import ReleaseBucket
from seaweedfs import SeaweedFS
from stagecontexts import FolderInputs, MemoryOutputs, stage_context

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


def open_bucket(server: S3Server | SeaweedFS) -> ObjectStore:
    from lora_jobs.store.s3 import open_s3

    bucket = make_bucket(server, f"bucket-{next(NUMBERS)}")
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    return open_s3(bucket.name, "some/prefix", S3Connection(endpoint=server.endpoint), keys)


SERVERS = [pytest.param(name, marks=pytest.mark.integration) for name in ("versitygw", "seaweedfs")]


@pytest.fixture(params=["directory", *SERVERS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store")
    return open_bucket(request.getfixturevalue(request.param))


def file_of(folder: Path, content: bytes) -> Path:
    file = folder / f"file-{next(NUMBERS)}"
    file.write_bytes(content)
    return file


def test_what_is_written_is_read_back(store: ObjectStore) -> None:
    store.write("a/b.json", b"{}")
    content = store.read("a/b.json")
    assert content is not None
    assert content.data == b"{}"


def test_what_is_not_there_reads_as_none(store: ObjectStore, tmp_path: Path) -> None:
    assert store.read("absent") is None
    assert store.head("absent") is None
    with pytest.raises(ObjectMissing):
        store.download("absent", tmp_path / "file")


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 3, b"012"), (3, None, b"3456789"), (8, 100, b"89"), (100, 5, b""), (10, None, b"")],
)
def test_a_range_is_cut_at_the_end(
    store: ObjectStore, start: int, length: int | None, expected: bytes
) -> None:
    store.write("digits", b"0123456789")
    content = store.read("digits", start, length)
    assert content is not None
    assert content.data == expected


def test_an_empty_object_is_there(store: ObjectStore) -> None:
    store.write("empty", b"")
    found, content = store.head("empty"), store.read("empty")
    assert found is not None
    assert found.size == 0
    assert content is not None
    assert content.data == b""


def test_only_the_first_creation_counts(store: ObjectStore) -> None:
    assert store.create("once", b"first")
    assert not store.create("once", b"second")
    content = store.read("once")
    assert content is not None
    assert content.data == b"first"


def test_of_many_creators_one_wins_and_its_bytes_stand(store: ObjectStore) -> None:
    for round_number in range(5):
        key = f"race/{round_number}"
        with ThreadPoolExecutor(12) as pool:
            won = list(pool.map(lambda i, k=key: store.create(k, b"%d" % i), range(12)))
        assert won.count(True) == 1
        content = store.read(key)
        assert content is not None
        assert content.data == b"%d" % won.index(True)


def test_replacing_needs_the_present_etag(store: ObjectStore) -> None:
    store.write("entry", b"one")
    first = store.read("entry")
    assert first is not None
    assert store.replace("entry", b"two", first.etag)
    assert not store.replace("entry", b"three", first.etag)
    assert not store.replace("absent", b"x", first.etag)
    content = store.read("entry")
    assert content is not None
    assert content.data == b"two"


def test_of_many_that_replace_one_wins(store: ObjectStore) -> None:
    store.write("entry", b"zero")
    start = store.head("entry")
    assert start is not None
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.replace("entry", b"%d" % i, start.etag), range(8)))
    assert won.count(True) == 1


def test_a_listing_holds_what_is_below_the_prefix_and_nothing_else(store: ObjectStore) -> None:
    for key in ("models/a/x", "models/a/y", "models/b", "modelsque", "other"):
        store.write(key, key.encode())
    assert [o.key for o in store.list("models/")] == ["models/a/x", "models/a/y", "models/b"]
    assert [(o.key, o.size) for o in store.below("models").list()] == [
        ("a/x", 10), ("a/y", 10), ("b", 8),
    ]  # fmt: skip
    assert store.list("nothing/") == []


def test_an_object_says_when_it_was_written(store: ObjectStore) -> None:
    before = time.time()
    store.write("one", b"1")
    (listed,), asked = store.list(), store.head("one")
    assert asked is not None
    # To the second, and by the server's clock, which here is ours.
    assert before - 1 <= listed.modified_at <= time.time() + 1
    assert abs(asked.modified_at - listed.modified_at) <= 1


def test_the_etag_changes_with_the_content(store: ObjectStore) -> None:
    store.write("object", b"one")
    before = store.head("object")
    store.write("object", b"two")
    after = store.head("object")
    assert before is not None
    assert after is not None
    assert before.etag != after.etag
    assert [o.etag for o in store.list()] == [after.etag]


def test_a_download_of_a_replaced_object_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.write("object", b"one")
    before = store.head("object")
    assert before is not None
    store.download("object", tmp_path / "first", before.etag)
    store.write("object", b"two")
    with pytest.raises(ObjectChanged):
        store.download("object", tmp_path / "second", before.etag)
    assert (tmp_path / "first").read_bytes() == b"one"


def test_a_file_in_parts_comes_back_and_its_checksum_is_known(
    store: ObjectStore, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(PART_BYTES + 3)
        stream.write(b"beginning")
    store.upload("big", big)
    expected = hash_file(big)
    assert store.is_stored("big", expected)
    found = store.head("big")
    assert found is not None
    store.download("big", tmp_path / "again", found.etag)
    assert hash_file(tmp_path / "again") == expected


def test_a_file_of_another_size_is_not_the_stored_one(store: ObjectStore, tmp_path: Path) -> None:
    store.upload("file", file_of(tmp_path, b"four"))
    assert store.is_stored("file", hash_file(file_of(tmp_path, b"four")))
    assert not store.is_stored("file", hash_file(file_of(tmp_path, b"fourteen")))
    assert not store.is_stored("absent", hash_file(file_of(tmp_path, b"four")))


def test_what_is_deleted_is_gone_and_deleting_again_is_no_error(store: ObjectStore) -> None:
    store.write("a/b", b"1")
    store.write("a/c", b"2")
    store.delete("a/b")
    store.delete("a/b")
    assert [found.key for found in store.list("a/")] == ["a/c"]


@pytest.mark.parametrize("key", ["../outside", "/absolute", "a//b", "a/./b", ""])
def test_no_key_leads_out_of_the_place(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a relative path"):
        store.write(key, b"")


def model(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights", **files}.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_published_artifact_is_fetched_with_the_same_digest(
    store: ObjectStore, tmp_path: Path
) -> None:
    digest = publish_artifact(store, model(tmp_path / "made"))
    assert has_artifact(store, digest)
    fetch_artifact(store, digest, tmp_path / "fetched")
    assert hash_folder(tmp_path / "fetched").digest == digest
    assert {f.name for f in (tmp_path / "fetched").iterdir()} == {
        "config.json", "model.safetensors",
    }  # fmt: skip


def test_publishing_again_changes_nothing(store: ObjectStore, tmp_path: Path) -> None:
    digest = publish_artifact(store, model(tmp_path / "made"))
    before = store.list()
    assert publish_artifact(store, tmp_path / "made") == digest
    assert store.list() == before


@pytest.mark.fault("F25")
def test_two_that_publish_the_same_at_once_both_succeed(store: ObjectStore, tmp_path: Path) -> None:
    folder = model(tmp_path / "made")
    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(lambda _: publish_artifact(store, folder), range(4)))
    assert len(digests) == 1
    assert has_artifact(store, digests.pop())


def test_an_upload_that_was_cut_before_the_manifest_is_no_artifact(
    store: ObjectStore, tmp_path: Path
) -> None:
    folder = model(tmp_path / "made")
    digest = hash_folder(folder).digest
    cut: Any = CutBefore(store, "manifest.json")
    with pytest.raises(Cut):
        publish_artifact(cut, folder)
    assert store.list(), "some files were uploaded"
    assert not has_artifact(store, digest)
    with pytest.raises(StageError, match="no manifest"):
        fetch_artifact(store, digest, tmp_path / "fetched")
    assert publish_artifact(store, folder) == digest, "doing it again completes it"
    assert has_artifact(store, digest)


def damage_file(store: ObjectStore, place: str) -> None:
    store.write(f"{place}/model.safetensors", b"Weights")


def damage_size(store: ObjectStore, place: str) -> None:
    store.write(f"{place}/model.safetensors", b"weight")


def damage_manifest(store: ObjectStore, place: str) -> None:
    content = store.read(f"{place}/manifest.json")
    assert content is not None
    store.write(f"{place}/manifest.json", content.data.replace(b'"size":7', b'"size":8'))


@pytest.mark.parametrize("damage", [damage_file, damage_size, damage_manifest])
def test_a_damaged_artifact_never_becomes_a_folder(
    store: ObjectStore, tmp_path: Path, damage: Callable[[ObjectStore, str], None]
) -> None:
    digest = publish_artifact(store, model(tmp_path / "made"))
    damage(store, f"artifacts/{digest.replace(':', '-')}")
    with pytest.raises(StageError):
        fetch_artifact(store, digest, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_manifest_that_leads_out_of_the_folder_is_refused(
    store: ObjectStore, tmp_path: Path
) -> None:
    escape = FileDigest("../../outside", 1, "0" * 64)
    digest = artifact_digest([escape])
    store.write(
        f"artifacts/{digest.replace(':', '-')}/manifest.json",
        b'{"digest":"%s","files":[{"path":"../../outside","size":1,"sha256":"%s","checksum":""}]}'
        % (digest.encode(), b"0" * 64),
    )
    assert not has_artifact(store, digest)
    with pytest.raises(StageError):
        fetch_artifact(store, digest, tmp_path / "deep" / "fetched")


class Cut(Exception):
    """The process was killed here."""


class CutBefore:
    """A store whose user dies before it writes a key that ends so."""

    def __init__(self, store: ObjectStore, ending: str) -> None:
        self._store, self._ending = store, ending

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def below(self, prefix: str) -> "CutBefore":
        return CutBefore(self._store.below(prefix), self._ending)

    def create(self, key: str, data: bytes, content_type: str = "") -> bool:
        if key.endswith(self._ending):
            raise Cut
        return self._store.create(key, data, content_type)


def test_the_stage_collect_leaves_what_is_kept_whole_and_young_releases(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "open_store", lambda *_: store)
    bucket = ReleaseBucket(tmp_path, store)
    old, new = bucket.publish("demo", 1, 128), bucket.publish("demo", 2, 128)
    outputs = MemoryOutputs(tmp_path)
    context = stage_context(
        Stage.COLLECT, {"keep": [new]}, FolderInputs({}), outputs, tmp_path / "work", {}, []
    )
    assert "1 younger than 7 days stay" in collect.run(context).message
    assert len(filed_releases(store)) == 2
    monkeypatch.setattr(collect, "MIN_AGE", "0s")
    assert collect.run(context).message.startswith("removed 1 releases")
    (kept,) = filed_releases(store)
    assert (kept.record.release.id, bucket.is_whole(kept)) == (new, True)
    assert store.head(layout.release("demo", old)) is None
