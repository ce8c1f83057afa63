"""What NVML says of the accelerators while something is measured, and how fast their memory is.

`nvidia-ml-py` loads the driver's own library; without either there is nothing to say.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SAMPLE_SECONDS = 1.0
SLOWED_BY = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's clock event reasons that make a measurement another one. The power cap is no such reason:
a device under load meets it every time."""


@dataclass
class AcceleratorState:
    """One device over a window.

    Attributes:
        processes_before: Compute processes on it before the engine started: other people's.
        reasons: Clock event reasons of all samples together, NVML's bits.
    """

    name: str
    processes_before: int = 0
    clocks_mhz: list[int] = field(default_factory=list)
    temperatures_c: list[int] = field(default_factory=list)
    reasons: int = 0

    @property
    def disturbed(self) -> str:
        """Why what was measured on it is not to be trusted; empty when it is."""
        said = [text for bit, text in SLOWED_BY.items() if self.reasons & bit]
        if self.processes_before:
            said.append(f"{self.processes_before} other processes on it")
        return f"{self.name}: {', '.join(said)}" if said else ""

    def __str__(self) -> str:
        clocks, heat = self.clocks_mhz or [0], self.temperatures_c or [0]
        return f"{self.name} {min(clocks)}-{max(clocks)} MHz, up to {max(heat)} C"


@contextmanager
def nvml() -> Iterator[Any]:
    """The library, ready for use; None where there is none."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


class AcceleratorWatch:
    """Samples every visible device in a thread; a context manager around a window.

    It is made before the engine starts, so that whoever is on a device then is somebody else. Pids
    would not say: inside a container NVML names the host's.
    """

    def __init__(self, library: Any) -> None:
        self._nvml, self._done = library, threading.Event()
        count = library.nvmlDeviceGetCount() if library else 0
        self._devices = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        self.states = [
            AcceleratorState(
                str(library.nvmlDeviceGetName(device)),
                len(_asked(library, [], library.nvmlDeviceGetComputeRunningProcesses, device)),
            )
            for device in self._devices
        ]
        self._thread = threading.Thread(target=self._sample_on, name="nvml", daemon=True)

    def __enter__(self) -> "AcceleratorWatch":
        if self._devices:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._devices:
            self._thread.join()

    def sample(self) -> None:
        """Note clocks, heat and reasons of every device now."""
        library = self._nvml
        for device, state in zip(self._devices, self.states, strict=True):
            clock = _asked(
                library, 0, library.nvmlDeviceGetClockInfo, device, library.NVML_CLOCK_SM
            )
            heat = _asked(
                library, 0, library.nvmlDeviceGetTemperature, device, library.NVML_TEMPERATURE_GPU
            )
            state.clocks_mhz.append(clock)
            state.temperatures_c.append(heat)
            state.reasons |= _asked(
                library, 0, library.nvmlDeviceGetCurrentClocksEventReasons, device
            )

    def _sample_on(self) -> None:
        while True:
            self.sample()
            if self._done.wait(SAMPLE_SECONDS):
                return


def memory_bandwidth(library: Any) -> float | None:
    """Peak bytes per second of the first device's memory; None where nobody knows.

    Bus width times twice the memory's top clock (two transfers a cycle): 3.35 TB/s for an H100 SXM,
    0.32 for a T4, as their data sheets say.
    """
    if library is None or not library.nvmlDeviceGetCount():
        return None
    device = library.nvmlDeviceGetHandleByIndex(0)
    bits = _asked(library, 0, library.nvmlDeviceGetMemoryBusWidth, device)
    mega_hertz = _asked(
        library, 0, library.nvmlDeviceGetMaxClockInfo, device, library.NVML_CLOCK_MEM
    )
    return float(bits / 8 * mega_hertz * 1e6 * 2) or None


def _asked(library: Any, unknown: Any, question: Callable[..., Any], *about: Any) -> Any:
    """NVML's answer; `unknown` where this device or driver has none (a share of one, a vGPU)."""
    try:
        return question(*about)
    except library.NVMLError:
        return unknown
