"""Operator processes: started by forking, killed without notice, started again when they end."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_ZYGOTE = Path(__file__).with_name("zygote.py")


class Zygote:
    """The process that forks operators.

    Args:
        python_path: Source roots, the operator's among them.
    """

    def __init__(self, python_path: str) -> None:
        self._python_path = python_path
        self._process: asyncio.subprocess.Process | None = None
        self._starting: deque[asyncio.Future[int]] = deque()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Zygote":
        environment = {**os.environ, "PYTHONPATH": self._python_path, "PYTHONUNBUFFERED": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(_ZYGOTE), env=environment, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._reading is not None
        self._process.kill()  # its children go with it
        await self._process.wait()
        self._reading.cancel()

    async def start(
        self, environment: Mapping[str, str], arguments: list[str], log: Path
    ) -> tuple[int, "asyncio.Future[int]"]:
        """Fork an operator; returns its pid and the future of its exit code."""
        assert self._process is not None
        assert self._process.stdin is not None
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._starting.append(started)
        order = {"environment": dict(environment), "arguments": arguments, "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        pid = await started
        return pid, self._ended[pid]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "started" in said:
                self._ended[said["started"]] = asyncio.get_running_loop().create_future()
                self._starting.popleft().set_result(said["started"])
            elif not (ended := self._ended[said["ended"]]).done():
                ended.set_result(said["code"])


class Operator:
    """One operator under a supervisor, as a Deployment's pod is.

    Attributes:
        restarts: How often it ended by itself and was started again.
        kills: How often it was killed.
    """

    def __init__(
        self, zygote: Zygote, environment: Mapping[str, str], arguments: list[str], log: Path
    ) -> None:
        self._zygote, self._environment, self._arguments = zygote, environment, arguments
        self._log = log
        self._pid = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.restarts = self.kills = 0

    async def __aenter__(self) -> "Operator":
        self._tasks = [asyncio.create_task(self._supervise())]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._end()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def kill(self) -> None:
        """SIGKILL, now: not one instruction of it runs after this call."""
        self.kills += 1
        self._end()

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self._pid, signal.SIGCONT)

    @property
    def log(self) -> str:
        """All that it has said, in all its lives."""
        return self._log.read_text() if self._log.exists() else ""

    def _end(self) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    async def _supervise(self) -> None:
        while not self._stopping:
            kills = self.kills
            self._pid, ended = await self._zygote.start(
                self._environment, self._arguments, self._log
            )
            await ended
            self._pid = 0
            if kills == self.kills:
                self.restarts += 1
                await asyncio.sleep(0.5)
