"""An event loop whose time is moved by its own timers, and an engine on it that works in turns.

Nothing sleeps: where all tasks wait, time is moved to the next timer. So what a queue does to
concurrent requests is exact.
"""

import asyncio
import json
import selectors
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import httpx

from fake_engine import FakeModel, Script

Result = TypeVar("Result")


class _Jumping(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "every task waits for something that never comes"
            self.jumped_s += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped_s


def run_virtually(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work` on a loop of virtual time; its clock is `loop_time`."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)


def loop_time() -> float:
    """The clock of whoever runs on the loop."""
    return asyncio.get_running_loop().time()


class QueueTransport(httpx.AsyncBaseTransport):
    """A scripted engine that answers `slots` requests at a time, in the order of their coming."""

    def __init__(self, script: Script, slots: int) -> None:
        self.model, self._slots = FakeModel(script), asyncio.Semaphore(slots)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._answer(json.loads(request.content))
        return httpx.Response(200, stream=_Stream(answer))

    async def _answer(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        async with self._slots:
            for delay, data in self.model.answer(body):
                await asyncio.sleep(delay)
                yield data


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: AsyncIterator[bytes]) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._answer:
            yield data
