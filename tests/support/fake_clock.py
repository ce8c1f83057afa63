"""Time that passes when the test says so."""

import asyncio
import heapq
import itertools
from collections.abc import Callable


class FakeAlarm:
    """A call-back that is to come, unless it is cancelled."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """It comes no more."""
        self.callback = None


class FakeClock:
    """`workqueue.Clock` that starts at zero."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[tuple[float, int, FakeAlarm]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        """Seconds since the start of the test's time."""
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeAlarm:
        """Call back when `advance` gets there."""
        alarm = FakeAlarm(callback)
        heapq.heappush(self._alarms, (self.now + seconds, next(self._numbers), alarm))
        return alarm

    async def advance(self, seconds: float) -> None:
        """Let time pass and everything that is due happen."""
        until = self.now + seconds
        await settle()
        while self._alarms and self._alarms[0][0] <= until:
            self.now, _, alarm = heapq.heappop(self._alarms)
            if alarm.callback:
                alarm.callback()
            await settle()
        self.now = until
        await settle()


async def settle() -> None:
    """Let all tasks run until they wait for something."""
    for _ in range(50):
        await asyncio.sleep(0)
