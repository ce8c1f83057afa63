"""`lora-jobs publish`: a folder becomes an artifact, or is refused before anything is sent."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_jobs.store.artifacts import has_artifact, verify_folder
from lora_jobs.store.directory import DirectoryStore
from mergefiles import write_base


def lora_jobs(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lora_jobs", *words],
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_base(tmp_path / "model")


def test_what_is_published_can_be_fetched_by_the_digest_that_was_printed(
    model: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    ended = lora_jobs("publish", str(model), store, "--scope", "team")
    assert ended.returncode == 0, ended.stderr
    digest = ended.stdout.strip()
    assert has_artifact(DirectoryStore(Path(store)).below("team"), digest)
    fetched = lora_jobs(
        "fetch", "--store", store, "--scope", "team", "--digest", digest,
        "--output", str(tmp_path / "fetched"),
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    assert verify_folder(tmp_path / "fetched", digest)
    assert {p.name for p in model.iterdir()} == {p.name for p in (tmp_path / "fetched").iterdir()}


def test_published_twice_it_is_one_artifact_and_nothing_is_sent_again(
    model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = lora_jobs("publish", str(model), str(store))
    inodes = {p: p.stat().st_ino for p in store.rglob("*")}
    assert lora_jobs("publish", str(model), str(store)).stdout == first.stdout
    assert {p: p.stat().st_ino for p in store.rglob("*")} == inodes


def cut(model: Path) -> None:
    file = next(model.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])


def empty(model: Path) -> None:
    for file in model.iterdir():
        file.unlink()


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda model: (model / "pytorch_model.bin").touch(), "UnsafeFile: .*can run code; convert"),
    (lambda model: (model / "modeling_own.py").touch(), "UnsafeFile: .*can run code; remove"),
    (lambda model: (model / ".gitattributes").touch(), "InvalidInput: .*no part of a model"),
    (lambda model: (model / "manifest.json").touch(), "InvalidInput: .*no part of a model"),
    (cut, "InvalidInput: .*no complete safetensors file"),
    (empty, "InvalidInput: .*no safetensors file"),
]


@pytest.mark.parametrize(
    ("spoil", "told"), REFUSED, ids=["pickle", "code", "hidden", "manifest", "truncated", "empty"]
)
def test_a_folder_that_is_no_whole_safe_model_is_refused_before_anything_is_sent(
    spoil: Callable[[Path], object], told: str, model: Path, tmp_path: Path
) -> None:
    spoil(model)
    ended = lora_jobs("publish", str(model), str(tmp_path / "store"))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert re.match(told, ended.stderr)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("store", ["http://host/bucket", "hf://org/name"])
def test_a_place_that_is_no_store_is_a_usage_error(model: Path, store: str) -> None:
    ended = lora_jobs("publish", str(model), store)
    assert ended.returncode == 64
    assert "is neither s3:" in ended.stderr


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert lora_jobs("publish", str(tmp_path / "none"), str(tmp_path / "store")).returncode == 64
