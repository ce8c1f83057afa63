"""The fake engine for the two ways that our code reaches one: a client's transport and a process.

As a transport nothing sleeps: the clock is moved by the delays of the script, so what the client
measures is exact.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import httpx

import fake_engine
from fake_engine import FakeModel, Script
from lora_api.runtimes import ServeCommand
from lora_jobs.benchmarking.engine import Engine


class VirtualClock:
    """Time that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeTransport(httpx.AsyncBaseTransport):
    """The engine behind an httpx client, on a virtual clock."""

    def __init__(self, script: Script, clock: VirtualClock | None = None) -> None:
        self.model, self.clock = FakeModel(script), clock or VirtualClock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        script = self.model.script
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": m} for m in script.models]})
        if request.url.path == "/metrics":
            return httpx.Response(200 if script.metrics else 404, text=script.metrics)
        if script.dies_on_request:
            raise httpx.ConnectError(script.dies_on_request)
        if script.status != 200:
            return httpx.Response(script.status, text="no")
        answer = self.model.answer(json.loads(request.content))
        return httpx.Response(200, stream=_Stream(answer, self.clock))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: Iterator[tuple[float, bytes]], clock: VirtualClock) -> None:
        self._answer, self._clock = answer, clock

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for delay, data in self._answer:
            self._clock.now += delay
            yield data


def start_fake(script_of: Callable[[Path], Script]) -> Callable[..., Engine]:
    """A stand-in for `Engine`; `script_of` is given the folder of its log."""

    def start(command: ServeCommand, port: int, health_path: str, log: Path) -> Engine:
        document = json.dumps(asdict(script_of(log.parent)))
        argv = [sys.executable, "-I", "-S", fake_engine.__file__, str(port), document]
        return Engine(ServeCommand(argv, {}), port, health_path, log, deadline_seconds=60)

    return start
