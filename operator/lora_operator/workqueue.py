"""Keys to look at, each at most once at a time, now or later.

    add(key) -> due now      a key that is worked on is looked at once more afterwards
    add(key, can_wait)       others that are due go first, for `PATIENCE_SECONDS` at most
    work(key) -> seconds     when to look again, None: not by itself
    work(key) raises         again with exponential back-off; other keys are not affected

`Schedule` is the pure half; `WorkQueue` puts workers and a clock around it. Time is monotonic.
"""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class Clock(Protocol):
    """Monotonic time, so that a jump of the wall clock moves nothing."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "Alarm":
        """Call back that much later."""
        ...


class Alarm(Protocol):
    """A call-back that is to come."""

    def cancel(self) -> None:
        """It comes no more."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        """Call back on the running loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)


class Meter(Protocol):
    """Whom the queue tells how it does."""

    def waited(self, seconds: float) -> None:
        """A key was taken that much after it was due."""
        ...

    def worked(self, seconds: float) -> None:
        """A look took that long, whatever came of it."""
        ...

    def retried(self, is_known: bool) -> None:
        """A look failed and is tried again."""
        ...


class TryLater(Exception):
    """Work that could not be done for a known reason: backed off, told in one line."""


PATIENCE_SECONDS = 30.0
"""How long a key that can wait stands back behind others, so that it waits for ever for none."""


class Due(NamedTuple):
    """When a key is due, and since when it counts as waiting: who waits longest goes first."""

    at: float
    since: float


class Schedule(Generic[Key]):
    """When each key is due; a key has one entry, the earliest."""

    def __init__(self) -> None:
        self._due: dict[Key, Due] = {}
        self._later: list[tuple[float, int, Key, Due]] = []
        """By the moment at which they are due."""
        self._now: list[tuple[float, int, Key, Due]] = []
        """Those that were due at the last look, who waits longest first."""
        self._count = 0
        self._running: set[Key] = set()

    def add(self, key: Key, at: float, can_wait: bool = False) -> None:
        """Due then; where it is due already, at the earlier of both, with the less patience."""
        due = Due(at, at + (PATIENCE_SECONDS if can_wait else 0.0))
        known = self._due.get(key)
        if known:
            due = Due(min(known.at, due.at), min(known.since, due.since))
        if due != known:
            self._due[key] = due
            self._push(key)

    def start(self, now: float) -> tuple[Key, float] | None:
        """The key that waits longest and is not being worked on, and when it was due.

        It counts as being worked on.
        """
        while self._later and self._later[0][0] <= now:
            _, count, key, due = heapq.heappop(self._later)
            if self._is_valid(key, due):
                heapq.heappush(self._now, (due.since, count, key, due))
        while self._now:
            _, _, key, due = heapq.heappop(self._now)
            if self._is_valid(key, due):
                del self._due[key]
                self._running.add(key)
                return key, due.at
        return None

    def finish(self, key: Key) -> None:
        """Work on the key has ended; what was added meanwhile counts from now on."""
        self._running.discard(key)
        if key in self._due:
            self._push(key)

    def next_due(self) -> float | None:
        """The earliest moment at which `start` can find anything."""
        for heap in (self._now, self._later):
            while heap and not self._is_valid(*heap[0][2:]):
                heapq.heappop(heap)
        return min((heap[0][3].at for heap in (self._now, self._later) if heap), default=None)

    def depth(self, now: float) -> int:
        """Keys that are due and not being worked on."""
        return sum(due.at <= now and key not in self._running for key, due in self._due.items())

    def _is_valid(self, key: Key, due: Due) -> bool:
        """Not replaced by an earlier one, and none that comes again at `finish`."""
        return self._due.get(key) == due and key not in self._running

    def _push(self, key: Key) -> None:
        self._count += 1  # equal times in the order of their arrival
        due = self._due[key]
        heapq.heappush(self._later, (due.at, self._count, key, due))


class WorkQueue(Generic[Key]):
    """Workers over a schedule.

    Args:
        work: Looks at one key; returns the seconds until the next look, or None.
        clock: Monotonic time.
        backoff_seconds: First wait after a failure, and the longest one; it doubles in between.
        limit_seconds: A look that takes longer is cancelled and counts as failed.
        jitter: A number in [0, 1).
        meter: Told of every look.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        clock: Clock,
        backoff_seconds: tuple[float, float] = (1.0, 600.0),
        limit_seconds: float = 300.0,
        jitter: Callable[[], float] = random.random,
        meter: Meter | None = None,
    ) -> None:
        self._work, self._clock, self._jitter, self._meter = work, clock, jitter, meter
        self._backoff_seconds, self._limit_seconds = backoff_seconds, limit_seconds
        self._schedule: Schedule[Key] = Schedule()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    def add(self, key: Key, delay_seconds: float = 0.0, can_wait: bool = False) -> None:
        """Look at the key then, or earlier when it is due earlier. Returns at once.

        Args:
            key: What to look at.
            delay_seconds: From now.
            can_wait: Nothing is known to have changed; others go first.
        """
        self._schedule.add(key, self._clock.monotonic() + delay_seconds, can_wait)
        self._changed.set()

    def depth(self) -> int:
        """Keys that are due and not being worked on."""
        return self._schedule.depth(self._clock.monotonic())

    def stop(self) -> None:
        """Start nothing any more; `run` returns when the looks under way have ended."""
        self._stopping = True
        self._changed.set()

    async def run(self, workers: int = 8) -> None:
        """Work until `stop`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while (key := await self._next()) is not None:
            delay_seconds = await self._look(key)
            self._schedule.finish(key)
            if delay_seconds is not None:
                self.add(key, delay_seconds)
            self._changed.set()

    async def _next(self) -> Key | None:
        while not self._stopping:
            self._changed.clear()
            now = self._clock.monotonic()
            if started := self._schedule.start(now):
                key, due = started
                if self._meter:
                    self._meter.waited(now - due)
                self._changed.set()  # another worker may find more
                return key
            next_due = self._schedule.next_due()
            await self._until_changed(None if next_due is None else next_due - now)
        return None

    async def _until_changed(self, seconds: float | None) -> None:
        """No task is made for the wait: kopf cancels what tasks it finds when it ends."""
        if seconds is None:
            await self._changed.wait()
            return
        alarm = self._clock.call_later(max(seconds, 0.0), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            alarm.cancel()

    async def _look(self, key: Key) -> float | None:
        began = self._clock.monotonic()
        try:
            return await self._try(key)
        finally:
            if self._meter:
                self._meter.worked(self._clock.monotonic() - began)

    async def _try(self, key: Key) -> float | None:
        try:
            async with asyncio.timeout(self._limit_seconds):
                delay_seconds = await self._work(key)
        except TryLater as reason:
            wait = self._wait_after_failure(key, is_known=True)
            logger.warning("%s: %s; again in %.0f s", key, reason, wait)
            return wait
        except Exception:
            wait = self._wait_after_failure(key, is_known=False)
            logger.exception("%s: failed, again in %.0f s", key, wait)
            return wait
        self._failures.pop(key, None)
        return delay_seconds

    def _wait_after_failure(self, key: Key, is_known: bool) -> float:
        """Doubles with every failure in a row; jittered, so that a crowd does not come at once."""
        if self._meter:
            self._meter.retried(is_known)
        count = self._failures[key] = self._failures.get(key, 0) + 1
        first, longest = self._backoff_seconds
        wait = min(longest, first * 2.0 ** min(count - 1, 30))
        return float(wait * (0.5 + 0.5 * self._jitter()))
