"""Folders on a volume that Jobs share: filled once, never trusted, never more than the limit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_api import layout
from lora_api.jobcontract import (
    PinnedSource,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_jobs.errors import Waiting
from lora_jobs.foldercache import FolderCache, cache_from
from lora_jobs.inputs import StoreInputs
from lora_jobs.store.artifacts import publish_artifact
from lora_jobs.store.directory import DirectoryStore


class Filler:
    """Makes a folder with one file of `size` bytes, and counts how often."""

    def __init__(self, size: int = 1000, content: bytes = b"w") -> None:
        self.size, self.content, self.fills = size, content, 0

    def __call__(self, target: Path) -> None:
        self.fills += 1
        target.mkdir(parents=True)
        (target / "model.safetensors").write_bytes(self.content * self.size)


def used(root: Path, name: str, fill: Filler, limit: int | None = None) -> Path:
    """What another process would get: nothing is held from before."""
    return FolderCache(root, limit).folder(name, fill.size, fill, root.parent / f"work-{name}")


def test_a_folder_is_filled_once_and_read_by_all(tmp_path: Path) -> None:
    fill = Filler()
    first, second = (used(tmp_path / "cache", "base-1", fill) for _ in range(2))
    assert first == second == tmp_path / "cache/base-1/files"
    assert (first / "model.safetensors").stat().st_size == 1000
    assert fill.fills == 1


def test_what_was_changed_on_the_volume_is_filled_again(tmp_path: Path) -> None:
    fill = Filler()
    file = used(tmp_path / "cache", "base-1", fill) / "model.safetensors"
    file.write_bytes(b"v" * 1000)
    assert used(tmp_path / "cache", "base-1", fill) == file.parent
    assert file.read_bytes() == b"w" * 1000
    assert fill.fills == 2


def test_what_another_job_reads_is_not_changed_under_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill, cache = Filler(), FolderCache(tmp_path / "cache")
    held = cache.folder("base-1", 1000, fill, tmp_path / "w1")
    (held / "model.safetensors").write_bytes(b"v" * 1000)
    other = used(tmp_path / "cache", "base-1", fill)
    assert other == tmp_path / "work-base-1"
    assert (other / "model.safetensors").read_bytes() == b"w" * 1000
    assert (held / "model.safetensors").read_bytes() == b"v" * 1000
    assert "damaged, and another Job uses it" in capsys.readouterr().err


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    root, limit = tmp_path / "cache", 4000
    for age, name in enumerate(("b", "a")):
        used(root, name, Filler(), limit)
        os.utime(root / name, (age, age))
    cache = FolderCache(root, limit)
    cache.folder("b", 1000, Filler(), tmp_path / "w")  # the oldest, now in use again
    os.utime(root / "b", (0, 0))
    used(root, "c", Filler(2000), limit)
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"b", "c"}
    assert sum(f.stat().st_size for f in root.rglob("*.safetensors")) <= limit


def test_what_does_not_fit_goes_into_the_work_folder_and_removes_nothing_in_vain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert used(tmp_path / "cache", "large", Filler(5000), 4000) == tmp_path / "work-large"
    assert "do not fit into its limit" in capsys.readouterr().err


def test_a_volume_that_cannot_be_written_is_no_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file, where the volume should be")
    fill = Filler()
    assert used(tmp_path / "cache", "base-1", fill) == tmp_path / "work-base-1"
    assert fill.fills == 1
    assert "without the cache" in capsys.readouterr().err


def test_a_refusal_of_the_source_is_told_as_it_is(tmp_path: Path) -> None:
    from lora_api.jobcontract import Reason

    def gone(_: Path) -> None:
        raise Waiting(Reason.SOURCE_CHANGED, "it is another one")

    with pytest.raises(Waiting, match="another one"):
        FolderCache(tmp_path / "cache").folder("base-1", 1, gone, tmp_path / "w")
    assert used(tmp_path / "cache", "base-1", Filler()).is_dir(), "its locks were given back"


FILLING = """
import sys, time
from pathlib import Path
from lora_jobs.foldercache import FolderCache
root = Path(sys.argv[1])
def fill(target):
    target.mkdir(parents=True, exist_ok=True)
    with (root / "fills").open("a") as log:
        log.write("x")
    print("filling", flush=True)
    sys.stdin.readline()
    (target / "model.safetensors").write_bytes(b"w" * 1000)
print(FolderCache(root / "cache").folder("base-1", 1000, fill, root / "work"), flush=True)
"""


def filling(root: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FILLING, str(root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_of_two_jobs_that_need_it_at_once_one_fills_and_the_other_waits(tmp_path: Path) -> None:
    first = filling(tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "filling\n"
    second = filling(tmp_path)
    assert second.stdout is not None
    assert "another Job fills base-1" in second.stdout.readline()
    first.communicate("go\n", timeout=60)
    told, _ = second.communicate(timeout=60)
    assert told.strip() == str(tmp_path / "cache/base-1/files")
    assert (tmp_path / "fills").read_text() == "x"


def test_a_job_that_died_while_it_filled_leaves_it_to_the_next(tmp_path: Path) -> None:
    first = filling(tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "filling\n"
    first.kill()
    first.wait()
    assert not (tmp_path / "cache/base-1").exists()
    second = filling(tmp_path)
    told, _ = second.communicate("go\n", timeout=60)
    assert told.splitlines()[-1] == str(tmp_path / "cache/base-1/files")


def test_stages_of_two_jobs_fetch_an_artifact_once(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    store = DirectoryStore(tmp_path / "store")
    digest = publish_artifact(store, model)
    request = StageRequest(
        call=StageCall(stage=Stage.EVALUATE),
        run=RunReference(namespace="team", name="demo", uid="u"),
        store=StoreReference(uri=store.uri(), scope=""),
        sources={"base": PinnedSource(uri="s3://b/base")},
    )

    def fetched(job: str) -> Path:
        environment = {"LORA_CACHE_DIR": str(tmp_path / "cache"), "LORA_CACHE_LIMIT_BYTES": "9999"}
        work = tmp_path / job
        work.mkdir()
        cache = cache_from(environment)
        return StoreInputs(request, store, work, lambda _: None, cache).artifact(digest)

    first = fetched("merge")
    files = store.below(layout.artifact(digest))
    assert json.loads((first.parent / "index.json").read_text())["digest"] == digest
    shutil.rmtree(files.root)  # whoever asks the store again finds nothing
    assert fetched("evaluate") == first
    assert cache_from({}) is None
