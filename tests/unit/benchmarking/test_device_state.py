"""What else a machine did is seen, and what cannot be a measurement is refused as one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fake_engine import Script
from fake_transport import FakeTransport, VirtualClock
from lora_api.runtimes import RECIPES, Runtime
from lora_jobs.benchmarking.accelerators import AcceleratorWatch, memory_bandwidth
from lora_jobs.benchmarking.client import CompletionClient
from lora_jobs.benchmarking.devicestate import CpuCounters, DeviceState, cpu_counters, state_between
from lora_jobs.benchmarking.roofline import MIN_WEIGHTS_BYTES, bytes_a_token, fastest_token_ms

STAT = "cpu  100 20 30 400 50 6 7 80 9 10\ncpu0 1 2 3\n"


def test_the_kernel_s_counters_are_read_by_their_places() -> None:
    # user nice system idle iowait irq softirq steal; guests are in user already.
    found = cpu_counters(STAT, ticks_per_second=100, own_seconds=1.0)
    assert found == pytest.approx((6.93, 1.63, 0.8, 1.0))


@given(own=st.floats(0, 5), foreign=st.floats(0, 5), steal=st.floats(0, 5), idle=st.floats(0.1, 5))
def test_time_is_ours_others_or_stolen(
    own: float, foreign: float, steal: float, idle: float
) -> None:
    before = CpuCounters(100.0, 50.0, 1.0, 10.0)
    total = own + foreign + steal + idle
    after = CpuCounters(100 + total, 50 + own + foreign, 1 + steal, 10 + own)
    state = state_between(before, after, load_average=1.0)
    assert state.foreign_share == pytest.approx(foreign / total, abs=1e-6)
    assert state.steal_share == pytest.approx(steal / total, abs=1e-6)


def test_more_of_our_own_time_than_the_kernel_saw_is_nobody_else_s() -> None:
    state = state_between(CpuCounters(0, 0, 0, 0), CpuCounters(10, 4, 0, 5), load_average=0)
    assert (state.foreign_share, state.steal_share) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("steal", "foreign", "said"),
    [
        (0.0, 0.0, ""),
        (0.05, 0.15, ""),
        (0.06, 0.0, "6% of the cores' time was stolen"),
        (0.0, 0.3, "other processes used 30% of the cores' time"),
    ],
)
def test_a_machine_that_others_use_is_disturbed(steal: float, foreign: float, said: str) -> None:
    assert DeviceState(1.0, steal, foreign).disturbed == said


def device(**facts: Any) -> Any:
    """The part of NVML that is used, for one device."""
    known = {"reasons": 0x4, "others": 0, "bits": 5120, "mega_hertz": 2619} | facts
    return SimpleNamespace(
        NVMLError=OSError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: "H100",
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [object()] * known["others"],
        nvmlDeviceGetClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetTemperature=lambda handle, kind: 61,
        nvmlDeviceGetCurrentClocksEventReasons=lambda handle: known["reasons"],
        nvmlDeviceGetMemoryBusWidth=lambda handle: known["bits"],
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: known["mega_hertz"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, ""),
        ({"reasons": 0x44}, "H100: hardware thermal slowdown"),
        ({"others": 2}, "H100: 2 other processes on it"),
    ],
)
def test_a_hot_or_shared_accelerator_is_disturbed_and_a_power_cap_is_usual(
    facts: dict[str, int], said: str
) -> None:
    with AcceleratorWatch(device(**facts)) as watch:
        pass
    (state,) = watch.states
    assert state.disturbed == said
    assert str(state) == "H100 1980-1980 MHz, up to 61 C"
    assert DeviceState(0, 0, 0, (state,)).disturbed == said


def test_a_device_that_answers_nothing_is_no_error() -> None:
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    mute = device()
    for name in [n for n in vars(mute) if n.startswith("nvmlDeviceGet")]:
        if not name.endswith(("Count", "ByIndex", "Name")):
            setattr(mute, name, refuse)
    with AcceleratorWatch(mute) as watch:
        pass
    assert watch.states[0].disturbed == ""
    assert memory_bandwidth(mute) is None


def test_without_a_driver_there_is_nothing_to_watch() -> None:
    with AcceleratorWatch(None) as watch:
        assert watch.states == []
    assert memory_bandwidth(None) is None


@pytest.mark.parametrize(
    ("bits", "mega_hertz", "data_sheet_tb_s"),
    [(5120, 2619, 3.35), (256, 5001, 0.32), (5120, 1593, 2.04)],
    ids=["H100 SXM", "T4", "A100 80 GB"],
)
def test_bandwidth_is_what_data_sheets_say(
    bits: int, mega_hertz: int, data_sheet_tb_s: float
) -> None:
    found = memory_bandwidth(device(bits=bits, mega_hertz=mega_hertz))
    assert found == pytest.approx(data_sheet_tb_s * 1e12, rel=0.01)


def test_no_token_is_faster_than_its_weights_can_be_read() -> None:
    # Llama-2-7B in 16 bits on an A100: at most 151 tokens a second.
    least_ms = fastest_token_ms(13_480_000_000, 2.04e12)
    assert least_ms is not None
    assert 1000 / least_ms == pytest.approx(151, abs=1)
    assert fastest_token_ms(13_480_000_000, 2.04e12, devices=2) == pytest.approx(least_ms / 2)


@pytest.mark.parametrize(
    ("read", "bandwidth"), [(None, 1e12), (1 << 40, None), (MIN_WEIGHTS_BYTES - 1, 1e12)]
)
def test_where_a_cache_may_help_or_nobody_knows_there_is_no_bound(
    read: int | None, bandwidth: float | None
) -> None:
    assert fastest_token_ms(read, bandwidth) is None


def model(folder: Path, config: str, *names: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    tensors = {name: np.zeros((4, 8), np.float32) for name in names}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_an_embedding_is_read_whole_where_it_is_the_head_too(tmp_path: Path) -> None:
    names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight")
    assert bytes_a_token(model(tmp_path / "tied", "{}", *names)) == 256
    assert bytes_a_token(model(tmp_path / "apart", "{}", *names, "lm_head.weight")) == 256
    assert bytes_a_token(model(tmp_path / "experts", '{"num_experts": 8}', *names)) is None


def counters(asked: int, found: int) -> str:
    return "".join(
        f"# TYPE vllm:prefix_cache_{name}_total counter\n"
        f'vllm:prefix_cache_{name}_total{{engine="{engine}"}} {count / 2}\n'
        f'vllm:prefix_cache_{name}_created{{engine="{engine}"}} 1.7e9\n'
        for name, count in (("queries", asked), ("hits", found))
        for engine in (0, 1)
    )


@pytest.mark.parametrize(
    ("metrics", "share"), [(counters(800, 200), 0.25), (counters(0, 0), 0.0), ("", None)]
)
async def test_the_engine_s_own_counters_say_what_came_from_its_prefix_cache(
    metrics: str, share: float | None
) -> None:
    transport = FakeTransport(Script(metrics=metrics), VirtualClock())
    async with CompletionClient("http://engine", RECIPES[Runtime.VLLM], transport) as client:
        assert await client.prefix_cache_share() == share


async def test_an_engine_without_such_counters_is_not_asked() -> None:
    transport = FakeTransport(Script(metrics="no metrics"), VirtualClock())
    recipe = RECIPES[Runtime.TRANSFORMERS]
    async with CompletionClient("http://engine", recipe, transport) as client:
        assert await client.prefix_cache_share() is None
