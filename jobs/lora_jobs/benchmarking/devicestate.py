"""What else the machine did while a process was measured.

`/proc/stat` counts the time of all cores; what neither the engine nor this client used is somebody
else's, and what the hypervisor took is steal. Both are shares of all cores' time.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from lora_jobs.benchmarking.accelerators import AcceleratorState, AcceleratorWatch, nvml

MAX_STEAL_SHARE = 0.05
MAX_FOREIGN_SHARE = 0.15
_BUSY = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq in the first line of /proc/stat; guests are in user already."""
_STEAL = 7
STAT = Path("/proc/stat")


class CpuCounters(NamedTuple):
    """Seconds since boot over all cores; `own` is of the engine and this client."""

    total: float
    busy: float
    steal: float
    own: float


def cpu_counters(stat: str, ticks_per_second: float, own_seconds: float) -> CpuCounters:
    """The counters in the text of /proc/stat."""
    ticks = [int(word) for word in stat.split("\n", 1)[0].split()[1:9]]
    seconds = [tick / ticks_per_second for tick in ticks]
    busy = sum(seconds[i] for i in _BUSY)
    return CpuCounters(sum(seconds), busy, seconds[_STEAL], own_seconds)


@dataclass(frozen=True)
class DeviceState:
    """The machine over one process's window.

    Attributes:
        load_average: Over one minute, at the end of it.
        steal_share: Of all cores' time that the hypervisor gave to others.
        foreign_share: Of all cores' time that other processes used.
        accelerators: Every visible device.
    """

    load_average: float
    steal_share: float
    foreign_share: float
    accelerators: tuple[AcceleratorState, ...] = ()

    @property
    def disturbed(self) -> str:
        """Why what was measured is not to be trusted; empty when it is."""
        said = [found for state in self.accelerators if (found := state.disturbed)]
        if self.steal_share > MAX_STEAL_SHARE:
            said.append(f"{self.steal_share:.0%} of the cores' time was stolen")
        if self.foreign_share > MAX_FOREIGN_SHARE:
            said.append(f"other processes used {self.foreign_share:.0%} of the cores' time")
        return "; ".join(said)


def state_between(
    before: CpuCounters,
    after: CpuCounters,
    load_average: float,
    accelerators: tuple[AcceleratorState, ...] = (),
) -> DeviceState:
    """What happened from one reading to a later one."""
    total = max(after.total - before.total, 1e-9)
    foreign = (after.busy - before.busy) - (after.own - before.own)
    return DeviceState(
        load_average,
        min(1.0, max(0.0, after.steal - before.steal) / total),
        min(1.0, max(0.0, foreign) / total),
        accelerators,
    )


class DeviceWatch:
    """Around an engine's whole process: `begin` when it can be asked, `end` before it stops."""

    def __init__(self, with_accelerators: bool) -> None:
        self._stack = ExitStack()
        library = self._stack.enter_context(nvml()) if with_accelerators else None
        self._accelerators = AcceleratorWatch(library)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, engine_seconds: Callable[[], float]) -> None:
        """Start the window; `engine_seconds` is the processor time of the engine so far."""
        self._engine_seconds = engine_seconds
        self._stack.enter_context(self._accelerators)
        self._before = self._counters()

    def end(self) -> DeviceState:
        """What happened since `begin`."""
        return state_between(
            self._before, self._counters(), os.getloadavg()[0], tuple(self._accelerators.states)
        )

    def _counters(self) -> CpuCounters:
        own = self._engine_seconds() + time.process_time()
        return cpu_counters(STAT.read_text(), os.sysconf("SC_CLK_TCK"), own)
