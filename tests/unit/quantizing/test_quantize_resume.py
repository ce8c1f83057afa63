"""A quantization that is killed goes on where it was and gives the same bytes (Q10)."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import interrupted_quantize
from interrupted_quantize import LAYERS, context_of, prepare, stored_checkpoint
from lora_api.jobcontract import Progress
from lora_jobs.termination import EXIT_TERMINATED

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("interrupted"))


@pytest.fixture(scope="module")
def digest(folder: Path) -> str:
    """Of the artifact of a run that nothing interrupts."""
    context = context_of(folder, folder / "other-store", folder / "work", [])
    result = interrupted_quantize.run(context)
    assert stored_checkpoint(context) == []
    return result.digest


@pytest.mark.fault("F23")
@pytest.mark.parametrize(
    ("name", "layer", "exit_code"),
    [
        # In the second layer: the first one's checkpoint is in the store.
        ("SIGKILL", 2, -signal.SIGKILL),
        # In the first layer, which is finished and stored before the process leaves.
        ("SIGTERM", 1, EXIT_TERMINATED),
    ],
)
def test_a_run_that_is_ended_goes_on_in_another_process_with_equal_bytes(
    folder: Path, digest: str, tmp_path: Path, name: str, layer: int, exit_code: int
) -> None:
    store = tmp_path / "store"
    ended = subprocess.run(
        [sys.executable, interrupted_quantize.__file__, folder, store, name, str(layer)],
        env=interrupted_quantize.environment(),
        check=False,
    )
    assert ended.returncode == exit_code
    seen: list[Progress] = []
    context = context_of(folder, store, tmp_path / "work", seen)
    assert "CURRENT" in stored_checkpoint(context)
    assert interrupted_quantize.run(context).digest == digest
    # At most one finished layer was lost.
    assert [p.done for p in seen] in (
        list(range(max(layer, 2), LAYERS + 1)),
        list(range(layer + 1, LAYERS + 1)),
    )
    assert stored_checkpoint(context) == []
