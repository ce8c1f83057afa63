"""One engine process: start it, wait until it can serve, watch its memory, stop it.

It runs in a process group of its own, which is stopped as a whole: engines start workers. Its
output goes to a file, whose end is what a failure shows.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
import psutil

from lora_api.jobcontract import REQUEST_ENV
from lora_api.runtimes import ServeCommand

LOOPBACK = "127.0.0.1"
START_DEADLINE_SECONDS = 900.0
_POLL_SECONDS = 0.1
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_STOP_GRACE_SECONDS = 4.0
"""Shorter than what SIGTERM leaves a stage program, see `lora_jobs.termination`."""
_LOG_TAIL_LINES = 12
_TAIL_CHARACTERS = 600


class EngineDied(Exception):
    """The engine ended, or was not ready in time; `str()` holds the end of its log."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Engine:
    """A context manager: ready on entry, gone on exit.

    Attributes:
        url: Where it listens.
        start_seconds: From process start to the first healthy answer.
    """

    def __init__(
        self,
        command: ServeCommand,
        port: int,
        health_path: str,
        log: Path,
        deadline_seconds: float = START_DEADLINE_SECONDS,
    ) -> None:
        self.command, self.log = command, log
        self.url = f"http://{LOOPBACK}:{port}"
        self.start_seconds = 0.0
        self._health_url = self.url + health_path
        self._deadline_seconds = deadline_seconds

    def __enter__(self) -> Self:
        self._sink: IO[bytes] = self.log.open("wb")
        began = time.monotonic()
        try:
            self._process = subprocess.Popen(
                self.command.argv,
                cwd=self.command.working_dir or None,
                env=_environment(self.command.env),
                stdin=subprocess.DEVNULL,
                stdout=self._sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._sink.close()
            raise EngineDied(f"{self.command.argv[0]} cannot be started: {error}") from None
        try:
            self._wait_until_healthy(began)
        except BaseException:
            self._stop()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def peak_memory_bytes(self) -> int:
        """The most memory that its processes have had resident, so far."""
        return peak_resident_bytes(self._process.pid)

    def processor_seconds(self) -> float:
        """Processor time of its processes that still run, so far."""
        return processor_seconds(self._process.pid)

    def kernels(self, lines: str) -> tuple[str, ...]:
        """What its log says of the kernels that it chose, each once, sorted.

        Args:
            lines: A pattern whose group is kept; empty where the engine says nothing.
        """
        if not lines:
            return ()
        pattern = re.compile(lines)
        with self.log.open(errors="replace") as log:
            return tuple(sorted({found[1] for line in log if (found := pattern.search(line))}))

    def died(self, doing: str) -> EngineDied:
        """What to raise when it does not answer any more."""
        code = self._process.poll()
        ended = "does not answer" if code is None else f"ended with {_exit(code)}"
        return EngineDied(f"the engine {ended} {doing}: {self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log, in one line."""
        with self.log.open(errors="replace") as lines:
            tail = deque(
                (stripped for line in lines if (stripped := line.strip())), _LOG_TAIL_LINES
            )
        return " | ".join(tail)[-_TAIL_CHARACTERS:] or "its log is empty"

    def _wait_until_healthy(self, began: float) -> None:
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while self._process.poll() is None:
                if time.monotonic() - began > self._deadline_seconds:
                    raise self.died(f"after {self._deadline_seconds:.0f} s while it starts")
                try:
                    if client.get(self._health_url).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(_POLL_SECONDS)
        raise self.died("while it starts")

    def _stop(self) -> None:
        _signal_group(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_STOP_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also when it has ended well: its workers are in the group.
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._sink.close()


def peak_resident_bytes(pid: int) -> int:
    """The largest resident sizes of a process and all below it, added up.

    From the kernel's own high-water marks, so nothing is sampled while requests are timed. Pages
    that processes share count once in each, and the peaks may have been at different times: it is
    the memory that is certainly enough.
    """
    return sum(_high_water_bytes(process.pid) for process in _family(pid))


def processor_seconds(pid: int) -> float:
    """User and system time of a process and all below it, of ended children too."""
    seconds = 0.0
    for process in _family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _high_water_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0  # it ended meanwhile
    match = _HIGH_WATER.search(status)
    return int(match[1]) * 1024 if match else 0


def _environment(added: dict[str, str]) -> dict[str, str]:
    """Ours without the stage's request, with this Python's programs first on PATH."""
    environment = {k: v for k, v in os.environ.items() if k != REQUEST_ENV}
    programs = str(Path(sys.executable).parent)
    environment["PATH"] = f"{programs}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return environment | added


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left


def _exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "SIGKILL (out of memory?)"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
