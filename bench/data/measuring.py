"""Runs a command as a process of its own and takes the kernel's account of it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """What one run took.

    Attributes:
        cpu_seconds: User and system time.
        peak_mib: Largest resident memory; the kernel counts from this process's own on.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str = ""


def measure(command: Sequence[object], keep_output: bool = False) -> Figures:
    """Run a command to its end.

    Raises:
        SystemExit: It failed; its output is shown.
    """
    words = [str(word) for word in command]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    began = time.monotonic()
    child = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{output}")
    cpu = used.ru_utime + used.ru_stime
    return Figures(wall, cpu, used.ru_maxrss / 1024, output if keep_output else "")


def as_pairs(
    one: Sequence[object], other: Sequence[object], pairs: int, fresh: Sequence[Path]
) -> list[tuple[Figures, Figures]]:
    """Both in turn, after one warm-up of each.

    Args:
        one: A command.
        other: What it is compared with.
        pairs: How many count.
        fresh: Removed before each run; the last run of `one` leaves its own.
    """

    def run(command: Sequence[object]) -> Figures:
        for folder in fresh:
            shutil.rmtree(folder, ignore_errors=True)
        os.sync()
        return measure(command)

    found = []
    for index in range(pairs + 1):
        found.append((run(one), run(other)))
        seconds = " / ".join(f"{figures.wall_seconds:.2f} s" for figures in found[-1])
        print(f"{index or 'warm-up'} of {pairs}: {seconds}", file=sys.stderr, flush=True)
    run(one)
    return found[1:]
