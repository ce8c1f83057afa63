"""A folder of a shared volume is filled once, by one pod."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_jobs.errors import Waiting
from lora_jobs.store.artifacts import fetch_artifact, publish_artifact
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.filling import filling


@pytest.fixture
def published(tmp_path: Path) -> tuple[DirectoryStore, str]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    store = DirectoryStore(tmp_path / "store")
    return store, publish_artifact(store, model)


def fetching(store: DirectoryStore, digest: str, output: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "lora_jobs", "fetch", "--store", str(store.root),
         "--digest", digest, "--output", str(output)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_second_pod_waits_for_the_first_and_takes_what_it_has_filled(
    published: tuple[DirectoryStore, str], tmp_path: Path
) -> None:
    store, digest = published
    output = tmp_path / "volume" / "sha256-x" / "demo"
    output.parent.mkdir(parents=True)
    with (output.parent / ".demo.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = fetching(store, digest, output)
        assert second.stderr is not None
        assert "another pod fills" in second.stderr.readline()
        assert not output.exists()
        fetch_artifact(store, digest, output)
    told, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert told.strip().endswith("verified")
    assert "fetched" not in told


def test_a_pod_that_died_while_it_filled_holds_nobody_up(
    published: tuple[DirectoryStore, str], tmp_path: Path
) -> None:
    store, digest = published
    output = tmp_path / "volume" / "demo"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"""
from pathlib import Path
from lora_jobs.store.filling import filling
with filling(Path({str(output)!r})):
    print("filling", flush=True)
    input()
"""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "filling\n"
    holder.kill()
    holder.wait()
    other = fetching(store, digest, output)
    assert other.wait(timeout=60) == 0
    assert (output / "model.safetensors").read_bytes() == b"weights"


def read_only(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_read_only_volume_that_holds_the_model_is_taken_and_an_empty_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", read_only)
    with filling(tmp_path / "demo"):
        pass  # it was there
    with pytest.raises(Waiting, match="volume is read-only"), filling(tmp_path / "demo"):
        read_only()
