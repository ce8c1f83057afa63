"""A tiny but true model: a small Llama, adapters and data sets, made in minutes and kept.

Trained on text that ships with CPython, so that perplexity, adapters and quantization mean
something. `ensure()` builds it once; the folder is named by a hash of this package's code.
"""

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRESS_MARK = "tiny model: "


@dataclass(frozen=True)
class TinyModel:
    """Where everything lies."""

    folder: Path

    @property
    def base(self) -> Path:
        """HF folder of the base, bf16."""
        return self.folder / "base"

    @property
    def adapter(self) -> Path:
        """LoRA that clearly lowers perplexity on code."""
        return self.folder / "adapter"

    @property
    def wrong_adapter(self) -> Path:
        """LoRA that loads and merges, and makes code less likely than the base does."""
        return self.folder / "wrong-adapter"

    @property
    def outlier_base(self) -> Path:
        """The base's function exactly, but int4 in groups of 128 cannot hold it."""
        return self.folder / "outlier-base"

    @property
    def outlier_adapter(self) -> Path:
        """The adapter for `outlier_base`."""
        return self.folder / "outlier-adapter"

    @property
    def calibration(self) -> Path:
        """Records of code, none of them in an evaluation set."""
        return self.folder / "calibration.jsonl"

    @property
    def task(self) -> Path:
        """Held-out records of code."""
        return self.folder / "task.jsonl"

    @property
    def general(self) -> Path:
        """Held-out records of prose."""
        return self.folder / "general.jsonl"


def default_folder() -> Path:
    """The place in the user's cache for the model that this code builds from this Python's text."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    whole = hashlib.sha256(sys.version.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(ast.unparse(ast.parse(file.read_text())).encode())  # comments build nothing
    return cache / "lora-operator" / "tiny-model" / whole.hexdigest()[:16]


def ensure() -> TinyModel:
    """The model, built if it is not there; a second process waits for the first."""
    folder = default_folder()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _build(folder)
    return TinyModel(folder)


def _build(folder: Path) -> None:
    """Train in a process of its own: what its libraries say goes to a log, progress is shown."""
    partial, log = folder.with_suffix(".partial"), folder.with_suffix(".log")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    command = [sys.executable, "-m", "tiny_model.build", str(partial)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # Threads that spin while they wait take the core that somebody else needs.
    environment = os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"}
    with (
        log.open("w") as sink,
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=sink
        ) as child,
    ):
        assert child.stdout is not None  # it is a pipe
        for line in child.stdout:
            if line.startswith(PROGRESS_MARK):
                print(line, end="", flush=True)
            else:
                sink.write(line)
    if child.returncode:
        raise RuntimeError(f"the tiny model could not be trained; see {log}")
    partial.rename(folder)
