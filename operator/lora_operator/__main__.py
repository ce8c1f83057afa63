"""`python -m lora_operator`: watches on one side, the work queue on the other, until SIGTERM."""

import argparse
import asyncio
import logging
import os
import random
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

import kopf

from lora_operator.cluster import (
    LORA_DEPLOYMENTS,
    Cluster,
    Denied,
    NotFound,
    Unavailable,
    connect,
)
from lora_operator.handlers import kopf_settings, watches
from lora_operator.health import Check, LoopLag, health_served
from lora_operator.lease import Leadership, LeaseLost, Times, Watchdog
from lora_operator.logs import log_to_stderr
from lora_operator.metrics import Metrics, operator_version, serve_metrics
from lora_operator.planning import plan
from lora_operator.reconcile import ObjectKey, Reconciler, Tracer
from lora_operator.settings import Settings
from lora_operator.watchage import WatchAge
from lora_operator.workqueue import SystemClock, WorkQueue

logger = logging.getLogger("lora_operator")

_HELP = """\
Watches LoRADeployments and takes each from an adapter to a served, quantized, gated model.

It connects to the cluster of KUBECONFIG if that is set, else to the one it runs in, else to the
current context, and is configured by the environment:

  LORA_OPERATOR_JOBS_IMAGE            image of resolve, merge, report, publish, verify, fetch
  LORA_OPERATOR_QUANTIZE_IMAGE        image of quantize and evaluate
  LORA_OPERATOR_SERVING_IMAGE_<NAME>  default image of a runtime, e.g. ..._VLLM; benchmarks too
  LORA_OPERATOR_CLUSTER_NAME          set where several clusters share a bucket
  LORA_OPERATOR_NAMESPACES            comma-separated; empty watches all
  LORA_OPERATOR_PROFILES              JSON: defaults that objects pick with spec.profile, by name
  LORA_OPERATOR_RESYNC_SECONDS        longest time between two looks at an object (600)
  LORA_OPERATOR_BACKOFF_MIN_SECONDS   first wait for the world to change (30); it doubles
  LORA_OPERATOR_BACKOFF_MAX_SECONDS   ... up to this (600)
  LORA_OPERATOR_PROGRESS_SECONDS      between two status writes that only move progress (30)
  LORA_OPERATOR_LEASE                 namespace/name: one of several replicas leads by this Lease
  LORA_OPERATOR_LEASE_SECONDS         how long a leader may be silent (15)
  LORA_OPERATOR_TRACING_ENDPOINT      http://HOST:4318: takes traces as OTLP over HTTP (none)
  LORA_OPERATOR_LOG_LEVEL             DEBUG, INFO, WARNING or ERROR (INFO)
  LORA_OPERATOR_LOG_FORMAT            text, or json: one object a line (text)
"""
_API_WAIT_SECONDS = 10.0
_LAST_LOOKS_SECONDS = 20.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM; exits with 64 when the environment is wrong, 1 when the watches ended."""
    parser = argparse.ArgumentParser(
        "lora_operator", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--verbose", action="store_true", help="log every request of the watches")
    parser.add_argument(
        "--health",
        default="http://0.0.0.0:8080/healthz",
        metavar="URL",
        type=urlsplit,
        help="where to answer liveness probes (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics", default="", metavar="URL", type=urlsplit,
        help="where to answer scrapes, e.g. http://0.0.0.0:8081/metrics (default: nowhere)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(64)
    log_to_stderr(settings.log_level, settings.log_format, options.verbose)
    try:
        asyncio.run(run(settings, options.health, options.metrics))
    except WatchesEnded as error:
        logger.critical("the watches ended, to be started again with the process: %s", error)
        sys.exit(1)
    except LeaseLost as lost:
        logger.critical("this process leads no more, and starts again as a standby: %s", lost)
        sys.exit(1)


class WatchesEnded(Exception):
    """A watch failed for good: its resource is gone, or the API server said so."""


async def run(settings: Settings, health_at: SplitResult, metrics_at: SplitResult) -> None:
    """The whole operator: stand by where another leads, then work.

    Args:
        settings: What the chart decides.
        health_at: URL of the liveness endpoint.
        metrics_at: URL of the metrics; without a port they are served nowhere.

    Raises:
        WatchesEnded: Only a restart helps.
        LeaseLost: Another replica leads; only a restart, as its standby, helps.
    """
    metrics, checks = Metrics(), dict[str, Check]()
    times = Times(settings.lease_seconds)
    watchdog = Watchdog(times.renew_deadline)
    async with (
        connect(metrics, watchdog.fence) as cluster,
        _metrics_served(metrics, metrics_at),
        _tracing(settings, metrics) as tracer,
    ):
        await _wait_for_api(cluster, settings)
        async with health_served(health_at, checks):
            if settings.lease is None:
                await _work(cluster, settings, metrics, tracer, checks)
                return
            identity = f"{socket.gethostname()}_{uuid.uuid4()}"
            leadership = Leadership(cluster, settings.lease, identity, times, watchdog)
            await leadership.take()
            watchdog.start(times.retry)
            keeping = asyncio.create_task(leadership.keep(), name="lease")
            try:
                await _work(cluster, settings, metrics, tracer, checks, keeping)
            finally:
                keeping.cancel()
            await leadership.give_back()


async def _work(
    cluster: Cluster,
    settings: Settings,
    metrics: Metrics,
    tracer: Tracer | None,
    checks: dict[str, Check],
    *others: asyncio.Task[None],
) -> None:
    """Watch and look at objects until SIGTERM, or until one of the tasks, or of the others, ends.

    Args:
        cluster: The Kubernetes API.
        settings: What the chart decides.
        metrics: Told of everything.
        tracer: Told what has ended.
        checks: Of the liveness endpoint; those of this work are added.
        others: What must go on meanwhile.
    """
    clock = SystemClock()
    reconciler = Reconciler(cluster, settings, plan, clock, meter=metrics, tracer=tracer)
    queue = WorkQueue(
        reconciler.reconcile, clock, backoff_seconds=(1.0, settings.backoff_max_seconds),
        meter=metrics,
    )  # fmt: skip
    metrics.follow_queue(queue.depth)
    age, lag = WatchAge[ObjectKey](), LoopLag()
    checks |= {"watch": age.check, "loop": lag.check}
    # Before kopf's own tasks: when it ends it cancels those that were made after it began.
    looking = asyncio.create_task(queue.run(), name="looks")
    resyncing = asyncio.create_task(_resync(cluster, settings, queue, age), name="resync")
    timing = asyncio.create_task(metrics.follow_loop(lag.observe), name="loop-lag")
    watching = asyncio.create_task(
        _watch(settings, watches(queue.add, age, metrics.watched)), name="watches"
    )
    try:
        done, _ = await asyncio.wait(
            (looking, resyncing, watching, *others), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
    finally:
        timing.cancel()
        resyncing.cancel()
        watching.cancel()
        queue.stop()
        await asyncio.wait((looking,), timeout=_LAST_LOOKS_SECONDS)


@asynccontextmanager
async def _metrics_served(metrics: Metrics, at: SplitResult) -> AsyncIterator[None]:
    if at.port is None:
        yield
        return
    runner = await serve_metrics(metrics, at.hostname or "", at.port, at.path or "/metrics")
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _tracing(settings: Settings, metrics: Metrics) -> AsyncIterator[Tracer | None]:
    """None where no traces are sent; nothing of OpenTelemetry is imported then."""
    if not settings.tracing_endpoint:
        yield None
        return
    from lora_operator.tracing import tracing

    endpoint, cluster = settings.tracing_endpoint, settings.cluster_name
    async with tracing(endpoint, operator_version(), cluster, metrics) as tracer:
        yield tracer


async def _watch(settings: Settings, registry: kopf.OperatorRegistry) -> None:
    """Run kopf until SIGTERM."""
    try:
        await kopf.operator(
            registry=registry,
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
        )
    except Exception as error:
        raise WatchesEnded(repr(error)) from error


async def _resync(
    cluster: Cluster, settings: Settings, queue: WorkQueue[ObjectKey], age: WatchAge[ObjectKey]
) -> None:
    """Look at every object every so often, whatever the watches have told."""
    while True:
        await asyncio.sleep(settings.resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311
        try:
            objects = await _all_objects(cluster, settings)
        except (Denied, NotFound, Unavailable) as error:
            logger.warning("no resync now: %s", error)
            continue
        age.compare(objects)
        for key in objects:
            delay_seconds = random.uniform(0.0, settings.resync_seconds / 10)  # noqa: S311
            queue.add(key, delay_seconds, can_wait=True)


async def _all_objects(cluster: Cluster, settings: Settings) -> dict[ObjectKey, str]:
    """Resource version of every object."""
    found = [
        await cluster.list_items(LORA_DEPLOYMENTS, namespace)
        for namespace in settings.namespaces or ("",)
    ]
    metadata = [item["metadata"] for items in found for item in items]
    return {ObjectKey(m["namespace"], m["name"]): m["resourceVersion"] for m in metadata}


async def _wait_for_api(cluster: Cluster, settings: Settings) -> None:
    """Until our kind is served: kopf, started earlier, would never notice it."""
    while True:
        try:
            await _all_objects(cluster, settings)
        except (Denied, NotFound, Unavailable) as error:
            logger.warning("waiting for the API: %s", error)
            await asyncio.sleep(_API_WAIT_SECONDS)
        else:
            return


if __name__ == "__main__":
    main()
