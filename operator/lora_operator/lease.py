"""One of several replicas works, the others stand by: a Lease says which.

Safety never rests on it: two operators at once do everything once, since names come from the work
and writes are conditional. The Lease saves the second one's reads, and a standby that is up already
takes over sooner than a pod that must be scheduled.

Who leads and cannot renew in time ends its process, by a thread that a blocked event loop does not
stop; before every write the time is looked at again, for a process that was stopped and goes on.
Whether another's Lease is over is judged by how long it was seen unchanged on one's own monotonic
clock: clocks of machines differ. Renew deadline and retry period are 2/3 and 2/15 of the Lease's
duration, as in client-go's defaults (15, 10 and 2 s).
"""

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lora_operator.cluster import (
    AlreadyExists,
    Cluster,
    Conflict,
    Denied,
    Kind,
    NotFound,
    Unavailable,
)
from lora_operator.settings import LeaseName

logger = logging.getLogger(__name__)

Json = dict[str, Any]

LEASES = Kind("coordination.k8s.io/v1", "Lease", "leases")
EXIT_CODE = 1
_NOT_NOW = (AlreadyExists, Conflict, NotFound, Denied, Unavailable, TimeoutError)


@dataclass(frozen=True)
class Times:
    """How long a Lease holds, in seconds.

    Attributes:
        duration: Another may take it when it was not renewed for so long.
        renew_deadline: Who could not renew it for so long leads no more.
        retry: Between two tries to take or renew it.
    """

    duration: float

    @property
    def renew_deadline(self) -> float:
        """Seconds."""
        return self.duration * 2 / 3

    @property
    def retry(self) -> float:
        """Seconds."""
        return self.duration * 2 / 15


class LeaseLost(Exception):
    """Somebody else leads now."""


@dataclass(frozen=True)
class Sighting:
    """What a Lease said, and since when it says so.

    Attributes:
        said: Its spec.
        since: Monotonic seconds.
    """

    said: Json
    since: float

    def then(self, said: Json, now: float) -> "Sighting":
        """The next look at it."""
        return self if said == self.said else Sighting(said, now)

    def is_free_for(self, identity: str, now: float) -> bool:
        """Whether this one may take it: it is its own or given back, or its time is over."""
        if self.said.get("holderIdentity") in (None, "", identity):
            return True
        return now - self.since >= float(self.said.get("leaseDurationSeconds") or 0)


class Watchdog:
    """Ends a process that leads but could not renew in time.

    Args:
        deadline_seconds: How long after a renewal.
        die: Ends the process at once, whatever it does.
    """

    def __init__(
        self,
        deadline_seconds: float,
        die: Callable[[], None] = lambda: os._exit(EXIT_CODE),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline_seconds, self._die, self._monotonic = deadline_seconds, die, monotonic
        self._renewed_at: float | None = None

    def renewed(self, at: float) -> None:
        """The Lease was renewed by a request that was sent at `at`."""
        self._renewed_at = at

    def dismissed(self) -> None:
        """This process does not lead any more, or not yet."""
        self._renewed_at = None

    def fence(self) -> None:
        """Returns unless this process leads by a Lease that is too old; then nothing returns."""
        renewed_at = self._renewed_at
        if renewed_at is None:
            return
        late = self._monotonic() - renewed_at - self._deadline_seconds
        if late > 0:
            logger.critical("the Lease could not be renewed in time, %.1f s too late", late)
            self._die()

    def start(self, period_seconds: float) -> None:
        """Look again and again, on a thread of its own that ends with the process."""

        def watch() -> None:
            while True:
                time.sleep(period_seconds)
                self.fence()

        threading.Thread(target=watch, name="lease-watchdog", daemon=True).start()


class Leadership:
    """Takes the Lease, keeps it, and gives it back.

    Args:
        cluster: The Kubernetes API.
        at: Which Lease.
        identity: Who takes it, unlike that of every other process.
        times: How long it holds.
        watchdog: Told of every renewal.
        monotonic: Clock of all waits.
        now: Wall clock, for what the Lease says to people.
    """

    def __init__(
        self,
        cluster: Cluster,
        at: LeaseName,
        identity: str,
        times: Times,
        watchdog: Watchdog,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._at, self._identity, self._times = cluster, at, identity, times
        self._watchdog, self._monotonic, self._now = watchdog, monotonic, now
        self._live: Json = {}

    async def take(self) -> None:
        """Stand by until the Lease is ours."""
        logger.info("standing by for the Lease %s/%s", *self._at)
        seen: Sighting | None = None
        while True:
            try:
                async with asyncio.timeout(self._times.renew_deadline / 2):
                    if self._may_take(seen := await self._look(seen)):
                        await self._write()
                        logger.info("%s leads", self._identity)
                        return
            except _NOT_NOW as refusal:
                _tell(refusal, "could not be taken")
            await self._pause()

    async def keep(self) -> None:
        """Renew it for ever.

        Raises:
            LeaseLost: Somebody else has it.
        """
        while True:
            await self._pause()
            try:
                async with asyncio.timeout(self._times.renew_deadline / 2):
                    await self._renew()
            except _NOT_NOW as refusal:
                _tell(refusal, "could not be renewed")

    async def give_back(self) -> None:
        """Let the next one take it at once. Best effort: if this fails it runs out."""
        self._watchdog.dismissed()
        try:
            async with asyncio.timeout(self._times.renew_deadline / 2):
                if self._holder(await self._read()) == self._identity:
                    await self._patch({"holderIdentity": ""})
        except _NOT_NOW as refusal:
            _tell(refusal, "could not be given back")

    async def _look(self, seen: Sighting | None) -> Sighting | None:
        if not await self._read():
            return None
        said, now = self._live.get("spec") or {}, self._monotonic()
        return seen.then(said, now) if seen else Sighting(said, now)

    def _may_take(self, seen: Sighting | None) -> bool:
        return seen is None or seen.is_free_for(self._identity, self._monotonic())

    async def _read(self) -> Json:
        self._live = await self._cluster.get(LEASES, *self._at) or {}
        return self._live

    @staticmethod
    def _holder(lease: Json) -> str:
        return str((lease.get("spec") or {}).get("holderIdentity") or "")

    async def _renew(self) -> None:
        """Write over our own version; if that is old, look whose it is."""
        try:
            await self._write()
        except (Conflict, NotFound, AlreadyExists):
            holder = self._holder(await self._read())
            if holder not in ("", self._identity):
                self._watchdog.dismissed()
                raise LeaseLost(f"{holder} leads now") from None
            await self._write()

    async def _write(self) -> None:
        sent = self._monotonic()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._times.duration)),
            "renewTime": _micro_time(self._now()),
        }
        if self._holder(self._live) != self._identity:
            spec["acquireTime"] = spec["renewTime"]
            spec["leaseTransitions"] = self._transitions() + bool(self._live)
        if self._live:
            await self._patch(spec)
        else:
            await self._create(spec)
        self._watchdog.renewed(sent)

    def _transitions(self) -> int:
        return int((self._live.get("spec") or {}).get("leaseTransitions") or 0)

    async def _create(self, spec: Json) -> None:
        document = {
            "apiVersion": LEASES.api_version, "kind": LEASES.kind,
            "metadata": {"namespace": self._at.namespace, "name": self._at.name}, "spec": spec,
        }  # fmt: skip
        self._live = await self._cluster.create(LEASES, document)

    async def _patch(self, spec: Json) -> None:
        version = {"resourceVersion": self._live["metadata"]["resourceVersion"]}
        change = {"metadata": version, "spec": spec}
        self._live = await self._cluster.patch(LEASES, *self._at, change)

    async def _pause(self) -> None:
        await asyncio.sleep(self._times.retry * random.uniform(0.8, 1.2))  # noqa: S311


def _tell(refusal: BaseException, what: str) -> None:
    """That somebody was faster is no news."""
    if isinstance(refusal, Denied | Unavailable | TimeoutError):
        logger.warning("the Lease %s: %s", what, refusal or "no answer in time")


def _micro_time(epoch_seconds: float) -> str:
    """As `metav1.MicroTime` wants it: `2026-11-22T10:00:00.000000Z`."""
    moment = datetime.fromtimestamp(epoch_seconds, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"
