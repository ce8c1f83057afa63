"""What may go wrong between an operator and its API server."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Collection

from faultlab.processes import Operator
from faultlab.proxy import Fault, Forward, Reply, Send
from faultlab.writes import Address, Point, Write

CHILDREN = ("jobs", "pods", "deployments", "services")


class AtPoint(Fault):
    """Harm at one write of the trace, once."""

    kind = ""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.fired = False
        self.name = f"{self.kind}: {point}"

    async def write(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """Harm if this is the write."""
        if self.fired or write.point != self.point:
            return await forward()
        self.fired = True
        return await self.harm(write, forward, operator)

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """What happens instead."""
        raise NotImplementedError


class CrashBefore(AtPoint):
    """The operator dies as it sends the request, which never arrives."""

    kind = "crash before"

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """Nothing arrives."""
        operator.kill()
        return None


class CrashAfter(AtPoint):
    """The request is carried out; the operator dies before the answer."""

    kind = "crash after"

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """It is done, and nobody knows."""
        await forward()
        operator.kill()
        return None


class LostReply(AtPoint):
    """The request is carried out; the connection breaks before the answer."""

    kind = "reply lost"

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """It is done, and the operator must find out."""
        await forward()
        return None


class Refused(AtPoint):
    """The server answers with an error and does nothing."""

    answers = {
        409: "Conflict",
        429: "TooManyRequests",
        500: "InternalError",
        503: "ServiceUnavailable",
        504: "Timeout",
    }

    def __init__(self, point: Point, status: int) -> None:
        self.kind = f"refused with {status}"
        super().__init__(point)
        self.status = status

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """As the API server says it."""
        return refusal(self.status, self.answers[self.status])


class StaleReads(AtPoint):
    """After the write, children are read as they were before it, for a while."""

    kind = "stale reads after"

    def __init__(self, point: Point, seconds: float = 2.0) -> None:
        super().__init__(point)
        self._seconds = seconds
        self._seen: dict[str, Reply] = {}
        self._old: dict[str, Reply] = {}
        self._until = 0.0

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """From here on the past is served."""
        self._old = dict(self._seen)
        reply = await forward()
        self._until = time.monotonic() + self._seconds
        return reply

    async def read(self, path: str, forward: Forward) -> Reply | None:
        """A list or an object, perhaps an old one."""
        if time.monotonic() < self._until and path in self._old:
            return self._old[path]
        reply = await forward()
        if Address.of(path).plural in CHILDREN and reply.accepted:
            self._seen[path] = reply
        return reply


class FailedReads(AtPoint):
    """After the write, what is read is answered with an error, for a while.

    Args:
        point: The write.
        plural: Only reads of this kind; empty is every read.
        status: The answer.
        seconds: How long.
    """

    kind = "reads fail after"

    def __init__(
        self, point: Point, plural: str = "", status: int = 500, seconds: float = 1.5
    ) -> None:
        super().__init__(point)
        self._plural, self._status, self._seconds = plural, status, seconds
        self._until = 0.0

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """From here on."""
        reply = await forward()
        self._until = time.monotonic() + self._seconds
        return reply

    async def read(self, path: str, forward: Forward) -> Reply | None:
        """An error, or the answer."""
        is_meant = self._plural in ("", Address.of(path).plural)
        if is_meant and time.monotonic() < self._until:
            return refusal(self._status, Refused.answers[self._status])
        return await forward()


class NoEvents(Fault):
    """No event of these kinds ever arrives; bookmarks do."""

    def __init__(self, plurals: Collection[str]) -> None:
        self._plurals = plurals
        self.name = f"no events of {', '.join(plurals)}"

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Dropped."""
        if plural not in self._plurals or _type(line) == "BOOKMARK":
            await send(line)
        else:
            self.fired = True
        return True


class DroppedEvent(Fault):
    """The n-th event of a kind is lost, alone."""

    def __init__(self, plural: str, number: int) -> None:
        self._plural, self._number = plural, number
        self._count = 0
        self.name = f"event {number} of {plural} lost"

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Dropped when its turn comes."""
        if plural == self._plural and _type(line) != "BOOKMARK":
            self._count += 1
            if self._count == self._number:
                self.fired = True
                return True
        await send(line)
        return True


class RepeatedEvents(Fault):
    """Every event comes twice, and the one before it once more."""

    name = "events repeated"

    def __init__(self) -> None:
        self._last: dict[str, bytes] = {}

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Again and again."""
        for copy in (line, self._last.get(plural, line), line):
            await send(copy)
        self._last[plural], self.fired = line, True
        return True


class DelayedEvents(Fault):
    """Events of some kinds come late, so that kinds overtake each other."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self.name = f"events late: {seconds}"

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Held up; the order within a kind stays."""
        await asyncio.sleep(self._seconds.get(plural, 0.0))
        self.fired = True
        await send(line)
        return True


class EventsEndInError(Fault):
    """The n-th event of each kind is an ERROR instead, and the stream ends."""

    def __init__(self, status: int, number: int = 3) -> None:
        self._status, self._number = status, number
        self.restarts = 0 if status == 410 else 5
        self._counts: defaultdict[str, int] = defaultdict(int)
        self.name = f"watches end in ERROR {status}"

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """As the API server ends a watch."""
        self._counts[plural] += 1
        if self._counts[plural] != self._number:
            await send(line)
            return True
        self.fired = True
        status = json.loads(refusal(self._status, "Expired").body)
        await send(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        return False


class WatchesRefused(Fault):
    """The first watches are answered with an error."""

    def __init__(self, status: int, count: int = 3) -> None:
        self._status, self._left = status, count
        self.restarts = count
        self.name = f"{count} watches refused with {status}"

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Streams that stand break once, so that new ones are asked for."""
        if self._left > 0:
            return False
        await send(line)
        return True

    async def watch(self, plural: str) -> Reply | None:
        """Refused."""
        if self._left <= 0:
            return None
        self._left -= 1
        self.fired = True
        return refusal(self._status, "Expired")


class SilentStreams(Fault):
    """Streams stay open and tell nothing, not even bookmarks."""

    name = "watches are silent"

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Swallowed."""
        self.fired = True
        return True


class Outage(AtPoint):
    """From a write on nothing is answered but errors, for some seconds.

    Attributes:
        asked: Requests while it lasted.
    """

    def __init__(self, point: Point, status: int, seconds: float) -> None:
        self.kind = f"{status} for {seconds:.0f} s"
        super().__init__(point)
        self._status, self._seconds = status, seconds
        self._until = 0.0
        self.asked = 0

    async def write(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """Refused while it lasts."""
        return self._refused() or await super().write(write, forward, operator)

    async def harm(self, write: Write, forward: Forward, operator: Operator) -> Reply | None:
        """It begins."""
        self._until = time.monotonic() + self._seconds
        return self._refused()

    async def read(self, path: str, forward: Forward) -> Reply | None:
        """Refused while it lasts."""
        return self._refused() or await forward()

    async def watch(self, plural: str) -> Reply | None:
        """Refused while it lasts."""
        return self._refused()

    async def event(self, plural: str, line: bytes, send: Send) -> bool:
        """Streams break."""
        if time.monotonic() < self._until:
            return False
        await send(line)
        return True

    def _refused(self) -> Reply | None:
        if time.monotonic() >= self._until:
            return None
        self.asked += 1
        return refusal(self._status, Refused.answers[self._status], retry_after=1)


def refusal(status: int, reason: str, retry_after: int = 0) -> Reply:
    """An answer as the API server makes it."""
    document = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": f"the fault laboratory says {status}", "reason": reason, "code": status,
    }  # fmt: skip
    headers = [("Content-Type", "application/json")]
    if retry_after:
        headers.append(("Retry-After", str(retry_after)))
    return Reply(status, json.dumps(document).encode(), tuple(headers))


def _type(line: bytes) -> str:
    return str(json.loads(line)["type"])
