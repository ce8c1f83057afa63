"""A server process with a log, and free ports for it.

A `Process` can be killed and started again with the same command line, as fault tests do.
Trap: a test run that is killed must not leave servers behind; `setpriv --pdeathsig` makes the
kernel end them with the thread that started them. So start them from the main thread (pytest
fixtures do).
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from localcluster.console import ClusterError, tail, wait_until
from localcluster.shell import which


class Process:
    """One server. `argv` stays the same over restarts, and so do its ports and its log."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log = log
        self.env = {**os.environ, **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ClusterError(f"{self.name} is not running")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        setpriv = which("setpriv")
        prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                prefix + self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,  # Ctrl-C in a test run reaches pytest only, which stops us
            )

    def check(self) -> None:
        """Raises with the end of the log when the process is gone."""
        if not self.is_running:
            code = None if self._child is None else self._child.returncode
            raise ClusterError(f"{self.name} ended (exit {code}):\n{tail(self.log)}")

    def wait_ready(self, ready: Callable[[], bool], *, seconds: float = 60) -> None:
        hint = f"See {self.log}"
        wait_until(self.name, ready, seconds=seconds, alive=self.check, hint=hint)

    def kill(self) -> None:
        """The crash that fault tests ask for: no notice, no clean-up."""
        self._end(signal.SIGKILL)

    def stop(self, grace: float = 5) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds."""
        self._end(signal.SIGTERM, grace)

    def _end(self, how: signal.Signals, grace: float = 5) -> None:
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(how)
            try:
                self._child.wait(grace)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._child = None


SERVER_PORTS = range(15000, 30000)
_own_ports: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free, and this process's own until it ends.

    Nobody else who asks here gets them, so a server may start late, or end and start again. They
    lie below those that Linux gives to clients, so that no connection takes one meanwhile.
    """
    found: list[int] = []
    for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)):
        if len(found) == count:
            break
        if _reserve(port) and _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _reserve(port: int) -> bool:
    """The kernel keeps the lock of a byte for as long as this process lives."""
    if port in _own_ports:
        return False
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _own_ports.add(port)
    return True


@cache
def _reservations() -> int:
    """A file of which each byte stands for a port; closing it would give all of ours back."""
    name = Path(tempfile.gettempdir()) / f"lora-operator-ports-{os.getuid()}"
    return os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
