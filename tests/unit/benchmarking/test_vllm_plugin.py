"""vLLM finds what we ask it to run in each of its processes."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytestmark = pytest.mark.model
TILES = """
import ctypes
from importlib.metadata import entry_points
for plugin in entry_points(group="vllm.general_plugins", name="lora_jobs_amx"):
    plugin.load()()
import torch
allowed = ctypes.c_uint64()
ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(allowed))  # arch_prctl, ARCH_GET_XCOMP_PERM
print(torch.cpu._is_amx_tile_supported(), bool(allowed.value >> 18 & 1))
"""


def test_the_plugin_is_where_vllm_looks_for_it() -> None:
    assert len(entry_points(group="vllm.general_plugins", name="lora_jobs_amx")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the tiles are asked for on Linux only")
def test_a_process_that_has_run_it_may_use_the_tiles_where_the_cpu_has_some() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TILES], capture_output=True, text=True, timeout=120, check=True
    )
    has_tiles, may_use_them = done.stdout.split()
    assert may_use_them == has_tiles
