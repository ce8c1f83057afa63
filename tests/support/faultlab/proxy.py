"""Between one operator and the API server: every request and watch event passes a fault."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import aiohttp
from aiohttp import web
from yarl import URL

from faultlab.processes import Operator
from faultlab.writes import Address, Naming, Write

_KEPT_HEADERS = ("Authorization", "Accept", "Content-Type", "User-Agent")


@dataclass(frozen=True)
class Reply:
    """An answer of the API server, or one that was made up."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    @property
    def accepted(self) -> bool:
        """Whether the request was carried out."""
        return self.status < 300


Forward = Callable[[], Awaitable[Reply]]
Send = Callable[[bytes], Awaitable[None]]


class Fault:
    """Does nothing: the base of all faults, and the fault-free case.

    A hook that returns None drops the connection without an answer.

    Attributes:
        fired: Whether it has done its harm.
        restarts: How often the operator may end by itself because of it.
    """

    name = "none"
    restarts = 0
    fired = False

    async def write(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """Something is to be changed."""
        return await forward()

    async def read(self, path: str, forward: Forward) -> Reply | None:
        """Something is read."""
        return await forward()

    async def watch(self, plural: str) -> Reply | None:
        """A watch begins; an answer refuses it."""
        return None

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """An event passes; false ends the stream."""
        await send(line)
        return True


class Watcher(Protocol):
    """Looks at every request, and closely at every write that reaches the API server."""

    def read(self, address: Address) -> None:
        """Something is read."""
        ...

    async def before(self, write: Write) -> None:
        """It is about to be forwarded."""
        ...

    async def after(self, write: Write, reply: Reply) -> None:
        """It was answered."""
        ...


class Proxy:
    """HTTP on a port of 127.0.0.1.

    Args:
        server: The API server.
        session: Without credentials: requests bear the operator's.
        watcher: Sees what is forwarded.
    """

    def __init__(self, server: str, session: aiohttp.ClientSession, watcher: Watcher) -> None:
        self._server, self._session, self._watcher = server, session, watcher
        self._naming = Naming()
        self._runner: web.AppRunner | None = None
        self._writing: set[asyncio.Task[Reply | None]] = set()
        self.fault = Fault()
        self.operator: Operator | None = None
        self.url = ""

    async def __aenter__(self) -> "Proxy":
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def begin(self, fault: Fault) -> None:
        """From now on this fault is at work, and writes are counted anew."""
        self.fault, self._naming = fault, Naming(labels=self._naming.labels)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") in ("true", "1"):
            return await self._watch(request)
        body = await request.read()
        if request.method in ("GET", "HEAD"):
            self._watcher.read(Address.of(request.raw_path))
            reply = await self.fault.read(request.raw_path, lambda: self._forward(request, body))
        else:
            reply = await self._write(request, body)
        if reply is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    async def _write(self, request: web.Request, body: bytes) -> Reply | None:
        content_type = request.headers.get("Content-Type", "")
        write = self._naming.write(request.method, request.raw_path, body, content_type)
        # The handler of a killed operator is cancelled; what was begun is carried through.
        task = asyncio.create_task(self._carry_through(write, request, body))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _carry_through(self, write: Write, request: web.Request, body: bytes) -> Reply | None:
        assert self.operator is not None
        forwarded = False

        async def forward() -> Reply:
            nonlocal forwarded
            forwarded = True
            await self._watcher.before(write)
            reply = await self._forward(request, body)
            await self._watcher.after(write, reply)
            return reply

        reply = await self.fault.write(write, forward, self.operator)
        if not forwarded:
            self._naming.forget(write.point)
        return reply

    async def _forward(self, request: web.Request, body: bytes) -> Reply:
        async with self._session.request(
            request.method, self._url(request), data=body or None, headers=_headers(request)
        ) as response:
            kind = response.headers.get("Content-Type", "application/json")
            kept = [("Content-Type", kind)]
            if after := response.headers.get("Retry-After"):
                kept.append(("Retry-After", after))
            return Reply(response.status, await response.read(), tuple(kept))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        plural, fault = Address.of(request.raw_path).plural, self.fault
        refusal = await fault.watch(plural)
        if refusal is not None:
            return web.Response(status=refusal.status, body=refusal.body, headers=refusal.headers)
        async with self._session.get(
            self._url(request), headers=_headers(request), read_bufsize=2**22
        ) as upstream:
            answer = web.StreamResponse(status=upstream.status)
            answer.content_type = "application/json"
            await answer.prepare(request)
            try:
                while line := await upstream.content.readline():
                    if not await self.fault.event(plural, line, answer.write):
                        break
            except (ConnectionError, aiohttp.ClientError):
                pass  # the operator has gone
            return answer

    def _url(self, request: web.Request) -> URL:
        return URL(self._server + request.raw_path, encoded=True)


def _headers(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
