"""One look at one object: observe -> plan -> status -> events -> actions.

Status is a function of what was observed, so it is written before anything is done: a look that is
cut short anywhere loses nothing, and the next one takes it up. When the status cannot be written
because the object has changed meanwhile, nothing is done at all: the picture was stale.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lora_api.status import Status
from lora_api.times import rfc3339
from lora_operator.actions import EmitEvent
from lora_operator.cluster import Cluster, Conflict, Denied, NotFound, Unavailable
from lora_operator.denial import denial_events, with_denial
from lora_operator.execute import Executor, post_event, write_status
from lora_operator.linking import with_links
from lora_operator.logs import log_about
from lora_operator.observe import observe_children, observe_object
from lora_operator.observed import Observed, ObservedObject
from lora_operator.plan import Plan
from lora_operator.settings import Settings
from lora_operator.spans import trace_id
from lora_operator.view import status_of
from lora_operator.workqueue import Clock, TryLater

Planner = Callable[[Observed, Settings, float], Plan]


class ObjectKey(NamedTuple):
    """Which LoRADeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass
class _Memory:
    """What is kept of an object between two looks; to lose it costs a write at most.

    Attributes:
        denial: What the API server denied in the last look.
        status_written_at: Monotonic seconds.
    """

    denial: str = ""
    status_written_at: float | None = None


class Meter(Protocol):
    """Whom the reconciler tells what became of the objects."""

    def saw(self, namespace: str, name: str, status: Status | None) -> None:
        """What an object's status says now; None: it is gone."""
        ...

    def wrote(self, before: Status, after: Status) -> None:
        """A status was written over another one."""
        ...


class Tracer(Protocol):
    """Whom the reconciler tells what has ended."""

    def wrote(self, parent: ObservedObject, before: Status, after: Status, now: float) -> None:
        """A status of the object was written over another one; returns at once."""
        ...


class Reconciler:
    """Looks at objects, one at a time each.

    Args:
        cluster: The Kubernetes API.
        settings: What the chart decides.
        plan: Every decision.
        clock: Monotonic, for what is limited in rate.
        now: Wall clock, seconds since the epoch, for what status says.
        meter: Told of every status.
        tracer: Told of every status that is written.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        plan: Planner,
        clock: Clock,
        now: Callable[[], float] = time.time,
        meter: Meter | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._cluster, self._settings, self._plan = cluster, settings, plan
        self._clock, self._now, self._meter = clock, now, meter
        self._tracer = tracer
        self._memories: dict[ObjectKey, _Memory] = {}

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Look at the object; returns when to look again, None for at the next resync.

        Raises:
            TryLater: The object has changed since it was read, or the API server is away or denies
                something; status tells the latter, now or at the next look.
        """
        log_about(object=str(key))
        try:
            parent = await observe_object(self._cluster, key.namespace, key.name)
            if parent is None or parent.deleting:
                self._memories.pop(key, None)
                if self._meter:
                    self._meter.saw(*key, None)
                return None
            self._log_about(parent, status_of(parent.status))
            return await self._look(parent, self._memories.setdefault(key, _Memory()))
        except (Conflict, NotFound, Denied, Unavailable) as refusal:
            raise TryLater(str(refusal)) from refusal

    async def _look(self, parent: ObservedObject, memory: _Memory) -> float | None:
        try:
            observed = await observe_children(
                self._cluster, parent, self._settings.kueue_api_version
            )
        except Denied as denied:
            memory.denial = str(denied)
            await self._tell(parent, memory, Plan((), status_of(parent.status)))
            raise
        plan = self._plan(observed, self._settings, self._now())
        await self._tell(parent, memory, plan)
        try:
            await self._act(parent, plan)
        except Denied as denied:
            memory.denial = str(denied)
            raise
        memory.denial = ""
        return plan.look_again_seconds

    async def _tell(self, parent: ObservedObject, memory: _Memory, plan: Plan) -> None:
        """Write the status, then post the events of its transitions."""
        before, status, now = status_of(parent.status), plan.status, self._now()
        at = rfc3339(now)
        events = [a for a in plan.actions if isinstance(a, EmitEvent)]
        if memory.denial:
            status = with_denial(before, status, memory.denial, parent.generation, at)
            events += denial_events(before, status)
        status = with_links(status, self._settings.runbooks_url)
        self._log_about(parent, status)
        if self._is_to_be_written(memory, before, status):
            await write_status(self._cluster, parent, status)
            memory.status_written_at = self._clock.monotonic()
            if self._meter:
                self._meter.wrote(before, status)
            if self._tracer:
                self._tracer.wrote(parent, before, status, now)
        if self._meter:
            self._meter.saw(parent.namespace, parent.name, status)
        for event in events:
            await post_event(self._cluster, parent, event, at)

    async def _act(self, parent: ObservedObject, plan: Plan) -> None:
        executor = Executor(self._cluster, self._settings, parent)
        for action in plan.actions:
            if not isinstance(action, EmitEvent):
                await executor.execute(action)

    def _log_about(self, parent: ObservedObject, status: Status) -> None:
        log_about(
            object=f"{parent.namespace}/{parent.name}",
            uid=parent.uid,
            run=status.run.id if status.run else "",
            trace_id=trace_id(parent.uid, status.run) if self._tracer else "",
        )

    def _is_to_be_written(self, memory: _Memory, before: Status, status: Status) -> bool:
        """Whether something has changed; mere progress counts only every so often."""
        if status == before:
            return False
        if _without_progress(status) != _without_progress(before):
            return True
        last, now = memory.status_written_at, self._clock.monotonic()
        return last is None or now - last >= self._settings.progress_seconds


def _without_progress(status: Status) -> Status:
    stages = [s.model_copy(update={"progress": None}) for s in status.stages]
    return status.model_copy(update={"stages": stages})
