"""Large models, full disks, kills and other CPUs: the same bytes, or nothing."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from lora_api.jobcontract import Progress, Reason
from lora_jobs.merging import merge_adapter, write
from lora_jobs.merging.headers import header_of
from lora_jobs.merging.plan import Task
from lora_jobs.store.artifacts import hash_folder
from mergefiles import (
    PREFIX,
    Q,
    lora,
    matrix,
    quiet,
    write_adapter,
    write_base,
    write_safetensors,
    write_shards,
)

PRELUDE = """
import os, signal, sys
from pathlib import Path
from lora_jobs.merging import merge_adapter
root = Path(sys.argv[1])
def merge(progress=lambda _: None):
    merge_adapter(root / "base", root / "adapter", root / "merged", progress)
"""


def run(
    folder: Path, program: str, arguments: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + program, str(folder), *arguments],
        capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip


def write_large(folder: Path, layers: int) -> None:
    """12 MB of bf16 a layer, with an update of each."""
    names = [f"model.layers.{i}.mlp.up_proj" for i in range(layers)]
    base = write_base(folder / "base", {})
    values = (matrix(3000, 2000).view(np.uint32) >> 16).astype(np.uint16).tobytes()

    def declare(header: dict[str, object]) -> None:
        for i, name in enumerate(names):
            header[f"{name}.weight"] = {
                "dtype": "BF16", "shape": [3000, 2000],
                "data_offsets": [i * len(values), (i + 1) * len(values)],
            }  # fmt: skip

    file = write_safetensors(base / "model.safetensors", {}, change=declare)
    with file.open("ab") as stream:
        for _ in names:
            stream.write(values)
    update = {k: v for i, n in enumerate(names) for k, v in lora(n, 3000, 2000, 16, i).items()}
    write_adapter(folder / "adapter", update, "BF16", r=16)


def peak_mib(folder: Path) -> float:
    """Peak memory of a process that merges and does nothing else.

    VmHWM and not getrusage: that one starts with the peak of the process that forked it.
    """
    done = run(folder, "merge(); print(open('/proc/self/status').read())")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_memory_stays_flat_in_the_models_size(tmp_path: Path) -> None:
    peaks = {}
    for layers in (2, 25):
        folder = tmp_path / str(layers)
        folder.mkdir()
        write_large(folder, layers)
        peaks[layers] = peak_mib(folder)
    assert (tmp_path / "25/merged/model.safetensors").stat().st_size > 300e6
    assert peaks[25] < 160
    assert peaks[25] - peaks[2] < 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_memory_stays_flat_where_dora_unties_a_large_embedding(tmp_path: Path) -> None:
    """Its columns' norms need all rows, twice."""
    name, rows, columns = "model.embed_tokens", 60_000, 1000
    values = (matrix(rows, columns).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    base = write_base(tmp_path / "base", {})
    entry = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, len(values)]}
    file = write_safetensors(
        base / "model.safetensors", {}, change=lambda h: h.update({f"{name}.weight": entry})
    )
    with file.open("ab") as stream:
        stream.write(values)
    update = {
        f"{PREFIX}{name}.lora_embedding_A": matrix(16, rows),
        f"{PREFIX}{name}.lora_embedding_B": matrix(columns, 16),
        f"{PREFIX}{name}.lora_magnitude_vector": matrix(1, columns)[0],
    }
    write_adapter(tmp_path / "adapter", update, "BF16", r=16, use_dora=True)
    peak = peak_mib(tmp_path)
    assert (tmp_path / "merged/model.safetensors").stat().st_size > 2 * len(values)
    assert peak < 160


@pytest.mark.fault("F23")
def test_a_killed_merge_leaves_no_output_and_a_rerun_converges(tmp_path: Path) -> None:
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(4000, 300)}, "BF16")
    write_adapter(tmp_path / "adapter", lora(Q, 4000, 300))
    killed = run(tmp_path, "merge(lambda p: p.done > p.total / 2 and os.kill(os.getpid(), 9))")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "merged").exists()
    assert (tmp_path / "merged.partial").is_dir()

    report = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
    fresh = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "fresh", quiet)
    assert not (tmp_path / "merged.partial").exists()
    assert report == fresh


STEPS = """
count, last = 0, int(sys.argv[2])
def step():
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
def hear(event, arguments):
    of_files = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
    if event in of_files and str(arguments[0]).startswith(str(root)):
        step()
sys.addaudithook(hear)
merge(lambda _: step())
print(count)
"""


@pytest.mark.fault("F23")
@pytest.mark.parametrize("seed", range(3))
def test_a_merge_that_is_killed_at_any_step_leaves_all_of_the_output_or_none(
    tmp_path: Path, seed: int
) -> None:
    """A step is a block that is through, or something that is done to a file."""
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(4000, 300)}, "BF16")
    write_adapter(tmp_path / "adapter", lora(Q, 4000, 300))
    whole = run(tmp_path, STEPS, arguments=("0",))
    steps = int(whole.stdout)
    fresh = hash_folder(tmp_path / "merged").digest
    shutil.rmtree(tmp_path / "merged")
    for last in random.Random(seed).sample(range(1, steps + 1), 6):
        killed = run(tmp_path, STEPS, arguments=(str(last),))
        assert killed.returncode == -signal.SIGKILL, last
        if (tmp_path / "merged").exists():
            assert hash_folder(tmp_path / "merged").digest == fresh, last
            shutil.rmtree(tmp_path / "merged")
        merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)
        assert hash_folder(tmp_path / "merged").digest == fresh, last
        assert not (tmp_path / "merged.partial").exists()
        shutil.rmtree(tmp_path / "merged")


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the same write fails."""
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(4000, 300)}, "BF16")
    write_adapter(tmp_path / "adapter", lora(Q, 4000, 300))
    limited = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    merge()
except OSError as error:
    print(type(error).__name__, error)
"""
    done = run(tmp_path, limited)
    assert "File too large" in done.stdout, done.stderr
    assert not list(tmp_path.glob("merged*"))


def test_a_base_that_changes_under_the_merge_is_refused(tmp_path: Path) -> None:
    from lora_jobs.errors import Refused

    base = write_base(tmp_path / "base", {f"{Q}.weight": matrix(4000, 300)}, "BF16")
    write_adapter(tmp_path / "adapter", lora(Q, 4000, 300))
    with pytest.raises(Refused, match="became shorter"):
        merge_adapter(
            base,
            tmp_path / "adapter",
            tmp_path / "merged",
            lambda _: os.truncate(base / "model.safetensors", 100_000),
        )
    assert not list(tmp_path.glob("merged*"))


def test_where_one_shard_fails_the_others_end_at_their_next_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_jobs.errors import Refused

    base = write_shards(
        tmp_path / "base", {f"{Q}.weight": matrix(40, 30)}, {"other": matrix(4000, 300)}
    )
    write_adapter(tmp_path / "adapter", lora(Q, 40, 30))
    other_began, has_failed, told = Event(), Event(), []

    def header(source: Path, tasks: tuple[Task, ...]) -> bytes:
        if source.name.startswith("model-00002"):
            return header_of(source, tasks)
        assert other_began.wait(60)
        raise Refused(Reason.INVALID_INPUT, "spoiled")

    def progress(done: Progress) -> None:
        told.append(done)
        other_began.set()
        assert has_failed.wait(60)

    monkeypatch.setattr(write, "header_of", header)
    monkeypatch.setattr(write, "Event", lambda: has_failed)
    monkeypatch.setattr(write, "SHARDS_AT_ONCE", 2)
    monkeypatch.setattr(write, "TOLD_BYTES", 0)
    with pytest.raises(Refused, match="spoiled"):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "merged", progress)
    assert len(told) == 1
    assert not list(tmp_path.glob("merged*"))


@pytest.mark.parametrize("kernels", ["Nehalem", "Haswell", "SkylakeX"])
@pytest.mark.parametrize("is_dora", [False, True], ids=["LoRA", "DoRA"])
def test_bytes_are_the_same_on_every_kind_of_cpu(
    tmp_path: Path, kernels: str, is_dora: bool
) -> None:
    """OpenBLAS is told to take the kernels of other CPUs; in float32 their sums differ."""
    update = lora(Q, 900, 700, rank=16)
    if is_dora:
        update[f"{PREFIX}{Q}.lora_magnitude_vector"] = matrix(1, 900)[0]
    write_base(tmp_path / "base", {f"{Q}.weight": matrix(900, 700)}, "BF16")
    write_adapter(tmp_path / "adapter", update, r=16, use_dora=is_dora)
    here = merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "here", quiet)
    done = run(tmp_path, "merge()", OPENBLAS_CORETYPE=kernels, OPENBLAS_NUM_THREADS="2")
    if done.returncode == -signal.SIGILL:
        pytest.skip(f"this CPU cannot run kernels for {kernels}")
    assert done.returncode == 0, done.stderr
    there = (tmp_path / "merged/model.safetensors").read_bytes()
    assert there == (tmp_path / "here/model.safetensors").read_bytes()
    assert here.merged == 1
