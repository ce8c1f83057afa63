"""The liveness endpoint: 200 while every check passes, else 500 with what is wrong in the body.

What it asks for by failing is a restart, which is cheap. So a check fails only for what a restart
cures: a watch that has gone silent, an event loop that is always late.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import SplitResult

from aiohttp import web

Check = Callable[[], None]
"""Returns while all is well.

Raises:
    Unhealthy: It is not; the message is for people.
"""

MAX_LAG_SECONDS = 5.0
"""Far above what a busy machine does to the loop: a restart makes a busy machine busier."""
_SAMPLES = 200
_QUANTILE = 0.99


class Unhealthy(Exception):
    """Only a restart helps."""


class LoopLag:
    """How late the event loop wakes sleepers: the 99th percentile of the last 200 times.

    Two pauses, as of a machine that was suspended, do not make it unhealthy; that the loop is late
    again and again does. It judges nothing before it has all samples.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    def observe(self, seconds: float) -> None:
        """A sleeper was woken that much too late."""
        self._samples.append(seconds)

    def check(self) -> None:
        """Nothing, while the loop is prompt.

        Raises:
            Unhealthy: It is not.
        """
        if len(self._samples) < _SAMPLES:
            return
        late = sorted(self._samples)[math.ceil(_QUANTILE * _SAMPLES) - 1]
        if late > MAX_LAG_SECONDS:
            raise Unhealthy(
                f"the event loop is late: p99 is {late:.1f} s over the last {_SAMPLES} samples, "
                f"the limit {MAX_LAG_SECONDS:g} s"
            )


def judge(checks: Mapping[str, Check]) -> tuple[int, dict[str, str]]:
    """HTTP status, and what each check says by its name."""
    said = {}
    status = 200
    for name, check in checks.items():
        try:
            check()
            said[name] = "ok"
        except Unhealthy as unhealthy:
            said[name], status = str(unhealthy), 500
    return status, said


@asynccontextmanager
async def health_served(at: SplitResult, checks: Mapping[str, Check]) -> AsyncIterator[None]:
    """Answer probes meanwhile, on the event loop: one that hangs shows as a probe that fails.

    Args:
        at: URL; without a port it is 80.
        checks: By name.

    Raises:
        OSError: The port is taken.
    """

    async def answer(_: web.Request) -> web.Response:
        status, said = judge(checks)
        return web.json_response(said, status=status)

    app = web.Application()
    app.router.add_get(at.path or "/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, at.hostname or "", at.port or 80).start()
    try:
        yield
    finally:
        await runner.cleanup()
