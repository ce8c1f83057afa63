"""Checkpoints of a quantization: one a layer, made by GPTQModel, mirrored to the store.

GPTQModel publishes a generation after each layer: files `objects/<sha256>` that never change, then
`CURRENT`, which names them. It checks all of that itself when it goes on, and refuses a checkpoint
of another model, recipe, calibration set, tool version or kind of device. Nothing of its format is
read here but those two names.

A pod's own disk ends with the pod, so a second thread copies each generation to the store while the
next layer is worked on. The accelerator never waits for the store: of what is finished, one layer
at most is lost as long as storing a layer takes no longer than quantizing one.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from lora_api.spec import QuantizationMethod
from lora_jobs.errors import StageError
from lora_jobs.pretrained import read_config
from lora_jobs.quantizing.report import ModuleOutcome
from lora_jobs.store.interface import JSON, ObjectMissing, ObjectStore
from lora_jobs.termination import EXIT_TERMINATED
from lora_jobs.weightfiles import SUFFIX

CURRENT = "CURRENT"
OBJECTS = "objects"
POLL_SECONDS = 0.2
CHECKPOINTED_MODEL_TYPES = ("llama",)
"""Of those admitted here, the ones whose state GPTQModel 7.6 knows how to keep.

Of AWQ it writes one too, and refuses it later: "checkpoint tensor schema differs"."""


def why_no_checkpoints(model: Path, method: QuantizationMethod) -> str:
    """Why a run of this model cannot be continued, empty if it can."""
    if method is QuantizationMethod.AWQ:
        return "GPTQModel does not take its own checkpoints of AWQ back"
    model_type = read_config(model).get("model_type")
    if model_type not in CHECKPOINTED_MODEL_TYPES:
        return f"GPTQModel keeps no checkpoints of model_type {model_type}"
    if any(file.is_symlink() for file in model.glob(f"*{SUFFIX}")):
        return "GPTQModel keeps no checkpoints of a model that is linked into its folder"
    return ""


def from_checkpoint(
    folder: Path, run: Callable[[Path | None], tuple[ModuleOutcome, ...]]
) -> tuple[ModuleOutcome, ...]:
    """Run on from what lies in the folder, or from the start where that does not fit.

    The folder is removed when the run is done.

    Raises:
        SystemExit: SIGTERM came, and the layer that was worked on is in the folder.
    """
    from filelock import Timeout
    from gptqmodel.looper.checkpoint import CheckpointStopped
    from gptqmodel.looper.checkpoint_store import CheckpointError

    is_continued = (folder / CURRENT).exists()
    try:
        found = run(folder)
    except CheckpointStopped:
        sys.exit(EXIT_TERMINATED)
    except CheckpointError as error:
        if not is_continued or isinstance(error.__cause__, Timeout):
            raise  # the second: another run works there
        print(f"starting again, since the checkpoint does not fit: {error}", file=sys.stderr)
        shutil.rmtree(folder)
        found = from_checkpoint(folder, run)
    shutil.rmtree(folder, ignore_errors=True)
    return found


class Mirror:
    """A checkpoint folder and its copy in the store, for the time of a `with` block.

    At the start the folder is filled from the store. A block that ends well leaves nothing there;
    one that is interrupted leaves the newest generation. A store that fails costs the checkpoint,
    never the work: that is said on stderr.
    """

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.folder, self.store = folder, store
        self._copied = b""
        self._stored: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._attempt(self._restore)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._attempt(self._forget if kind is None else self.copy)

    def copy(self) -> None:
        """Store the newest generation: what is not there yet, then its name; old ones go."""
        current = _read(self.folder / CURRENT)
        if current is None or current == self._copied:
            return
        snapshot = self.folder.with_name(f"{self.folder.name}-copied")
        try:
            names = _link_objects(self.folder, snapshot, current)
            if names is None:
                return  # superseded meanwhile; the next round copies the newer one
            for name in sorted(names - self._stored):
                self.store.upload(f"{OBJECTS}/{name}", snapshot / name)
                self._stored.add(name)
            self.store.write(CURRENT, current, JSON)
            self._copied = current
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)
        for name in sorted(self._stored - names):
            self.store.delete(f"{OBJECTS}/{name}")
            self._stored.discard(name)

    def _follow(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._attempt(self.copy)

    def _restore(self) -> None:
        found = self.store.list()
        self._stored = {f.key.removeprefix(f"{OBJECTS}/") for f in found if f.key != CURRENT}
        content = self.store.read(CURRENT)
        if content is None:
            return
        try:
            for name in sorted(self._stored):
                self.store.download(f"{OBJECTS}/{name}", self.folder / OBJECTS / name)
        except ObjectMissing:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        (self.folder / CURRENT).write_bytes(content.data)
        self._copied = content.data

    def _forget(self) -> None:
        self.store.delete(CURRENT)
        for found in self.store.list():
            self.store.delete(found.key)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (StageError, OSError) as error:
            print(f"checkpoint not in step with {self.store.uri()}: {error}", file=sys.stderr)


def _link_objects(folder: Path, snapshot: Path, current: bytes) -> set[str] | None:
    """Hard links to all objects of a generation; None when it was superseded meanwhile."""
    shutil.rmtree(snapshot, ignore_errors=True)
    snapshot.mkdir(parents=True)
    names = {f.name for f in (folder / OBJECTS).iterdir() if not f.name.startswith(".")}
    for name in names:
        try:
            os.link(folder / OBJECTS / name, snapshot / name)
        except FileNotFoundError:
            return None
    return names if _read(folder / CURRENT) == current else None


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
