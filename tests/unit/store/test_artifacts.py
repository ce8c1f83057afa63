"""Artifacts: any folder comes back as it was, and no damage goes unnoticed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_jobs.errors import StageError
from lora_jobs.store import hashing
from lora_jobs.store.artifacts import (
    fetch_artifact,
    has_artifact,
    hash_folder,
    publish_artifact,
    verify_folder,
)
from lora_jobs.store.directory import DirectoryStore

NAMES = st.text(st.sampled_from("abcXYZ019._- üß"), min_size=1, max_size=12).filter(
    lambda n: n.strip(".") and n != "manifest.json" and not n.startswith(".incoming-")
)
# A file's name never is another's folder: each path has its own first segment kind.
PATHS = st.one_of(
    NAMES.map(lambda n: f"f{n}"), st.tuples(NAMES, NAMES).map(lambda n: f"d{n[0]}/{n[1]}")
)
FOLDERS = st.dictionaries(PATHS, st.binary(max_size=200), min_size=1, max_size=6)


@contextmanager
def scene(files: dict[str, bytes]) -> Iterator[tuple[Path, DirectoryStore]]:
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "made")
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        yield Path(place), DirectoryStore(Path(place, "store"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@given(FOLDERS)
def test_any_folder_comes_back_as_it_was(files: dict[str, bytes]) -> None:
    with scene(files) as (place, store):
        digest = publish_artifact(store, place / "made")
        fetch_artifact(store, digest, place / "fetched")
        assert contents(place / "fetched") == files
        assert verify_folder(place / "fetched", digest)


@given(FOLDERS, FOLDERS)
def test_equal_bytes_at_equal_paths_are_one_artifact_and_others_another(
    one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    with scene(one) as (place, _), scene(other) as (other_place, _):
        digests = hash_folder(place / "made").digest, hash_folder(other_place / "made").digest
        assert (digests[0] == digests[1]) == (one == other)


@pytest.mark.fault("F34")
@given(FOLDERS, st.data())
def test_a_flipped_bit_anywhere_is_detected(files: dict[str, bytes], data: st.DataObject) -> None:
    with scene(files) as (place, store):
        digest = publish_artifact(store, place / "made")
        stored = store.below(f"artifacts/{digest.replace(':', '-')}")
        candidates = [o.key for o in stored.list() if o.size]
        key = data.draw(st.sampled_from(candidates))
        damaged = bytearray(stored.path(key).read_bytes())
        index = data.draw(st.integers(0, len(damaged) - 1))
        damaged[index] ^= 1 << data.draw(st.integers(0, 7))
        stored.path(key).write_bytes(damaged)
        try:
            fetch_artifact(store, digest, place / "fetched")
        except StageError:
            assert not (place / "fetched").exists()
        else:  # a bit of the manifest that means nothing, e.g. of the server's checksum
            assert key == "manifest.json"
            assert contents(place / "fetched") == files


@given(FOLDERS, st.data())
def test_without_any_one_of_its_files_it_is_not_there(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    with scene(files) as (place, store):
        digest = publish_artifact(store, place / "made")
        assert has_artifact(store, digest)
        stored = store.below(f"artifacts/{digest.replace(':', '-')}")
        stored.path(data.draw(st.sampled_from([o.key for o in stored.list()]))).unlink()
        assert not has_artifact(store, digest)


def test_a_folder_with_more_than_the_artifact_is_not_the_artifact(tmp_path: Path) -> None:
    with scene({"config.json": b"{}"}) as (place, store):
        digest = publish_artifact(store, place / "made")
        fetch_artifact(store, digest, tmp_path / "fetched")
        (tmp_path / "fetched" / "extra.py").write_text("")
        assert not verify_folder(tmp_path / "fetched", digest)
        assert not verify_folder(tmp_path / "absent", digest)


def test_fetching_replaces_a_folder_that_was_left_half_way(tmp_path: Path) -> None:
    with scene({"config.json": b"{}"}) as (place, store):
        digest = publish_artifact(store, place / "made")
        (tmp_path / ".incoming-fetched").mkdir()
        (tmp_path / ".incoming-fetched" / "junk").write_text("from a killed run")
        (tmp_path / "fetched").mkdir()
        (tmp_path / "fetched" / "old").write_text("")
        fetch_artifact(store, digest, tmp_path / "fetched")
        assert contents(tmp_path / "fetched") == {"config.json": b"{}"}


@pytest.mark.parametrize("files", [{}, {"manifest.json": b"{}"}])
def test_what_cannot_be_an_artifact_is_an_error(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be an artifact"):
        hash_folder(tmp_path)


def crc32c(data: bytes) -> bytes:
    """Bit by bit (RFC 3720, appendix B.4)."""
    sums = 0xFFFFFFFF
    for byte in data:
        sums ^= byte
        for _ in range(8):
            sums = sums >> 1 ^ (0x82F63B78 if sums & 1 else 0)
    return (sums ^ 0xFFFFFFFF).to_bytes(4, "big")


@given(st.integers(0, 40))
def test_the_checksum_of_a_file_in_parts_is_that_of_its_parts(size: int) -> None:
    import base64
    import hashlib

    content = bytes(range(size))
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "PART_BYTES", 8)
        patch.setattr(hashing, "_READ_BYTES", 4)
        file = Path(place, "file")
        file.write_bytes(content)
        found = hashing.hash_file(file)
    parts = [crc32c(content[i : i + 8]) for i in range(0, size, 8)]
    if size < 8:
        expected = base64.b64encode(hashlib.sha256(content).digest()).decode()
    else:
        joined = crc32c(b"".join(parts))
        expected = f"{base64.b64encode(joined).decode()}-{len(parts)}"
    assert found.checksum == expected
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.size == size
