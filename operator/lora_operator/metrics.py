"""What Prometheus is told of the operator and of the objects it looks after.

Counted where it happens: the queue, the client, the watches and the loop report here; what became
of stages and gates is read off the transitions of a status, once each was written. Requests of
kopf's own watches are not counted.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lora_api.gates import Verdict
from lora_api.status import StageStatus, Status
from lora_api.times import epoch_seconds
from lora_operator.transitions import StageEnd, stage_ends

_PREFIX = "lora_operator"
_VERDICTS = (Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR)
"""Of a model; a gate may be NotApplicable too."""
_QUICK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUE_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_STAGE_SECONDS = (5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LAG_PERIOD_SECONDS = 0.5


class Metrics:
    """All metrics of one operator process, in a registry of their own.

    Args:
        monotonic: Seconds since some moment.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.registry = CollectorRegistry()
        self._told: dict[Hashable, tuple[str, ...]] = {}
        self._last_event: dict[str, float] = {}
        ProcessCollector(registry=self.registry)
        Info(f"{_PREFIX}_build", "Version of the operator.", registry=self.registry).info(
            {"version": operator_version()}
        )
        self._depth = self._gauge("workqueue_depth", "Objects that are due and not looked at.")
        self._waits = self._histogram(
            "workqueue_queue_duration_seconds", "From due to looked at.", _QUEUE_SECONDS
        )
        self._looks = self._histogram(
            "workqueue_work_duration_seconds", "Time of one look at an object.", _QUEUE_SECONDS
        )
        self._retries = self._counter(
            "workqueue_retries", "Looks that failed, by cause: known (told in status) or error.",
            "cause",
        )  # fmt: skip
        self._calls = self._counter(
            "api_requests", "Calls to the API server; code `none`: no answer.",
            "verb", "resource", "code",
        )  # fmt: skip
        self._call_seconds = self._histogram(
            "api_request_duration_seconds", "Time of a call to the API server.", _QUICK_SECONDS,
            "verb",
        )  # fmt: skip
        self._watch_age = self._gauge(
            "watch_age_seconds", "Since the last event of a watch; writes of ours are events too.",
            "resource",
        )  # fmt: skip
        self._lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop wakes a sleeper.", _LAG_SECONDS
        )
        self._tasks = self._gauge("event_loop_tasks", "Tasks on the event loop.")
        self._stages = self._histogram(
            "stage_duration_seconds", "Stages that ended, from their Job's start; reused ones not.",
            _STAGE_SECONDS, "stage", "outcome",
        )  # fmt: skip
        self._reused = self._counter("stages_reused", "Stages whose result was there.", "stage")
        self._failures = self._counter(
            "stage_failures", "Attempts that failed or wait, by reason.", "stage", "reason"
        )
        self._accelerator_seconds = self._counter(
            "accelerator_seconds", "Accelerators times seconds that stages held them.",
            "stage", "outcome", "reason",
        )  # fmt: skip
        self._verdicts = self._counter("verdicts", "Judged models.", "verdict")
        self._gates = self._counter("gate_verdicts", "Judged gates.", "gate", "verdict")
        self._objects = self._gauge(
            "object_status", "1 for each LoRADeployment: its phase, and why it is not ready.",
            "namespace", "name", "phase", "reason",
        )  # fmt: skip
        self._spans = self._counter(
            "trace_spans", "Spans of traces, by outcome: sent or dropped.", "outcome"
        )
        for verdict in _VERDICTS:  # from 0, so that an increase has the first one too
            self._verdicts.labels(verdict)

    # --- the queue ---------------------------------------------------------------------------

    def follow_queue(self, depth: Callable[[], int]) -> None:
        """Ask the queue for its depth at every scrape."""
        self._depth.set_function(depth)

    def waited(self, seconds: float) -> None:
        """A key was taken that much after it was due."""
        self._waits.observe(max(0.0, seconds))

    def worked(self, seconds: float) -> None:
        """A look took that long, whatever came of it."""
        self._looks.observe(seconds)

    def retried(self, is_known: bool) -> None:
        """A look failed and is tried again."""
        self._retries.labels("known" if is_known else "error").inc()

    # --- the API server ----------------------------------------------------------------------

    def called(self, verb: str, resource: str, code: int | None, seconds: float) -> None:
        """The API server answered; code None: it did not."""
        self._calls.labels(verb, resource, "none" if code is None else str(code)).inc()
        self._call_seconds.labels(verb).observe(seconds)

    def watched(self, resource: str) -> None:
        """A watch told something."""
        if resource not in self._last_event:
            self._watch_age.labels(resource).set_function(lambda: self._age(resource))
        self._last_event[resource] = self._monotonic()

    def _age(self, resource: str) -> float:
        return self._monotonic() - self._last_event[resource]

    async def follow_loop(self, told: Callable[[float], None] = lambda _: None) -> None:
        """Measure the event loop's lag for ever, and count its tasks at every scrape.

        Args:
            told: Hears each sample, in seconds.
        """
        loop = asyncio.get_running_loop()
        self._tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        while True:
            asleep = self._monotonic()
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            late = max(0.0, self._monotonic() - asleep - _LAG_PERIOD_SECONDS)
            self._lag.observe(late)
            told(late)

    # --- the objects -------------------------------------------------------------------------

    def saw(self, namespace: str, name: str, status: Status | None) -> None:
        """What an object's status says now; None: it is gone."""
        key = (namespace, name)
        labels = (*key, status.phase, status.summary.reason) if status else None
        before = self._told.pop(key, None)
        if before and before != labels:
            self._objects.remove(*before)
        if labels:
            self._told[key] = labels
            self._objects.labels(*labels).set(1)

    def wrote(self, before: Status, after: Status) -> None:
        """A status was written over another one: count what has ended between them."""
        for end in stage_ends(before, after):
            self._count_stage(end)
        judged = after.benchmark
        if judged and judged != before.benchmark and _is_judged_anew(before, after):
            self._verdicts.labels(judged.verdict).inc()
            for gate in judged.gates:
                self._gates.labels(gate.name, gate.verdict).inc()

    def _count_stage(self, end: StageEnd) -> None:
        stage, outcome = end.stage, "succeeded" if end.succeeded else "failed"
        if stage.reused:
            self._reused.labels(stage.name).inc()
            return
        if (seconds := _seconds(stage)) is not None:
            self._stages.labels(stage.name, outcome).observe(seconds)
        if not end.succeeded:
            self._failures.labels(stage.name, stage.reason).inc()
        if end.accelerator_seconds:
            reason = "" if end.succeeded else stage.reason
            self._accelerator_seconds.labels(stage.name, outcome, reason).inc(
                end.accelerator_seconds
            )

    # --- traces ------------------------------------------------------------------------------

    def exported(self, spans: int, outcome: str) -> None:
        """Spans of traces were sent, or dropped."""
        self._spans.labels(outcome).inc(spans)

    # --- exposition --------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """All of it in Prometheus' text form."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", help_, labels, registry=self.registry)

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", help_, labels, registry=self.registry)

    def _histogram(
        self, name: str, help_: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"{_PREFIX}_{name}", help_, labels, buckets=buckets, registry=self.registry
        )


async def serve_metrics(metrics: Metrics, host: str, port: int, path: str) -> web.AppRunner:
    """Answer scrapes until the runner is cleaned up.

    On the event loop, so that what is read is never half written, and a loop that hangs shows as
    a scrape that fails.

    Raises:
        OSError: The port is taken.
    """

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get(path, scrape)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def _is_judged_anew(before: Status, after: Status) -> bool:
    """Not for a report that was only written later, nor for a wiped status that is rebuilt."""
    old, new = before.benchmark, after.benchmark
    if not before.conditions or new is None:
        return False
    return old is None or (old.verdict, old.gates) != (new.verdict, new.gates)


def _seconds(stage: StageStatus) -> float | None:
    started, completed = epoch_seconds(stage.started_at), epoch_seconds(stage.completed_at)
    return None if started is None or completed is None else max(0.0, completed - started)


def operator_version() -> str:
    """Of the installed wheel."""
    try:
        return version("lora-operator")
    except PackageNotFoundError:
        return "unknown"
