"""Sends traces by OTLP over HTTP. Imported only where an endpoint is set, for OpenTelemetry is.

A span costs a look an append to a queue; a thread of OpenTelemetry's sends what is queued. What the
queue cannot hold, or the endpoint does not take, is dropped and counted. Nothing is sent twice.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Status as SpanStatus

from lora_api.status import Status
from lora_operator.observed import ObservedObject
from lora_operator.spans import SpanRecord, spans_of

logger = logging.getLogger(__name__)

QUEUED_SPANS = 2048
_PERIOD_SECONDS = 5.0
_SEND_SECONDS = 10.0
"""How long a batch is tried, so that a receiver may restart."""
_LAST_BATCH_SECONDS = 5.0


class SpanMeter(Protocol):
    """Told of spans; from another thread too."""

    def exported(self, spans: int, outcome: str) -> None:
        """So many were `sent` or `dropped`."""
        ...


class Tracer:
    """Queues what has ended between two statuses.

    Args:
        endpoint: URL that takes OTLP over HTTP.
        version: The operator's.
        cluster: Name of the cluster; may be empty.
        meter: Told what became of spans.
        queued_spans: So many wait; further ones are dropped.
    """

    def __init__(
        self,
        endpoint: str,
        version: str,
        cluster: str,
        meter: SpanMeter,
        queued_spans: int = QUEUED_SPANS,
    ) -> None:
        # OpenTelemetry would log several lines a batch; here it is one line an outage.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._meter, self._limit, self._ids = meter, queued_spans, _Ids()
        self._exporter = _Exporter(endpoint, meter)
        self._queue = BatchSpanProcessor(
            self._exporter,
            max_queue_size=queued_spans,
            max_export_batch_size=min(512, queued_spans),
            schedule_delay_millis=_PERIOD_SECONDS * 1000,
        )
        named = {"k8s.cluster.name": cluster} if cluster else {}
        provider = TracerProvider(
            resource=Resource.create(
                {"service.name": "lora-operator", "service.version": version, **named}
            ),
            sampler=ALWAYS_ON,
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._queue)
        self._spans = provider.get_tracer("lora_operator", version)
        self._queued = 0

    def wrote(self, parent: ObservedObject, before: Status, after: Status, now: float) -> None:
        """A status was written over another one; returns at once."""
        for record in spans_of(parent, before, after, now):
            if self._queued - self._exporter.taken >= self._limit:
                self._meter.exported(1, "dropped")
            else:
                self._queued += 1
                self._end_span(record)

    def _end_span(self, record: SpanRecord) -> None:
        self._ids.record = record
        span = self._spans.start_span(
            record.name,
            context=_context_of(record),
            start_time=_nanoseconds(record.start),
            attributes=record.attributes,
        )
        if record.error:
            span.set_status(SpanStatus(StatusCode.ERROR, record.error))
        span.end(_nanoseconds(record.end))

    async def close(self) -> None:
        """Send what is queued; what cannot be sent within seconds is dropped."""
        ending = asyncio.ensure_future(asyncio.to_thread(self._queue.shutdown))
        done, _ = await asyncio.wait((ending,), timeout=_LAST_BATCH_SECONDS)
        if not done:
            self._exporter.shutdown()  # it tries no more
        await ending


@asynccontextmanager
async def tracing(
    endpoint: str, version: str, cluster: str, meter: SpanMeter
) -> AsyncIterator[Tracer]:
    """A tracer that sends what is left when it is done with."""
    tracer = Tracer(endpoint, version, cluster, meter)
    try:
        yield tracer
    finally:
        await tracer.close()


class _Ids(IdGenerator):
    """The ids of the record that is being made a span."""

    record: SpanRecord

    def generate_trace_id(self) -> int:
        return int(self.record.trace_id, 16)

    def generate_span_id(self) -> int:
        return int(self.record.span_id, 16)


class _Exporter(SpanExporter):
    """Counts, and tells of an outage once. Runs in the queue's thread."""

    def __init__(self, endpoint: str, meter: SpanMeter) -> None:
        self._otlp = OTLPSpanExporter(endpoint=endpoint, timeout=_SEND_SECONDS)
        self._endpoint, self._meter = endpoint, meter
        self._works, self._is_shut = True, False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._otlp.export(spans)
        except Exception:  # whatever it is, the next batch may fare better
            logger.exception("spans could not be sent")
            result = SpanExportResult.FAILURE
        works = result is SpanExportResult.SUCCESS
        self._meter.exported(len(spans), "sent" if works else "dropped")
        if self._works and not works:
            logger.warning(
                "spans are dropped: %s does not take them. Is it an OTLP/HTTP receiver, and may "
                "this pod reach it (tracing.endpoint, networkPolicy)?", self._endpoint,
            )  # fmt: skip
        elif works and not self._works:
            logger.warning("spans are taken again by %s", self._endpoint)
        self._works = works
        return result

    def shutdown(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            self._otlp.shutdown()  # type: ignore[no-untyped-call]


def _context_of(record: SpanRecord) -> Context:
    """Of the span's parent; an empty one makes it the first of its trace."""
    if not record.parent_id:
        return Context()
    parent = SpanContext(
        int(record.trace_id, 16),
        int(record.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
