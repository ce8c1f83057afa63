"""What a scrape says after things have happened."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import pytest

from counted_run import run_counted
from fake_clock import FakeClock, settle
from lora_api.jobcontract import Reason, StageFailure
from lora_api.status import Status
from lora_operator.metrics import Metrics, serve_metrics
from lora_operator.workqueue import TryLater, WorkQueue
from planning_world import World


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"lora_operator_{name}", labels)


def test_a_run_counts_each_stage_once_and_its_verdict_once() -> None:
    metrics, world = Metrics(), World()
    run_counted(metrics, world)
    for stage in ("resolve", "merge", "quantize", "evaluate", "benchmark", "publish", "verify"):
        ended = value(metrics, "stage_duration_seconds_count", stage=stage, outcome="succeeded")
        assert ended == 1, stage
    assert value(metrics, "verdicts_total", verdict="Passed") == 1
    assert value(metrics, "gate_verdicts_total", gate="taskQuality", verdict="Passed") == 1


def test_what_the_store_had_is_reused_and_has_no_duration() -> None:
    world = World()
    world.settle()
    world.recreate()
    metrics = Metrics()
    run_counted(metrics, world)
    assert value(metrics, "stages_reused_total", stage="quantize") == 1
    labels = {"stage": "quantize", "outcome": "succeeded"}
    assert value(metrics, "stage_duration_seconds_count", **labels) is None


def test_every_failed_attempt_counts_with_its_reason() -> None:
    metrics, world = Metrics(), World()
    world.reconcile()
    missing = StageFailure(failure=Reason.CREDENTIALS_MISSING, message="create it")
    before = Status.model_validate(world.status)
    world.end_stage("resolve", missing, exit_code=3)
    world.reconcile()
    metrics.wrote(before, Status.model_validate(world.status))
    labels = {"stage": "resolve", "reason": "CredentialsMissing"}
    assert value(metrics, "stage_failures_total", **labels) == 1


def test_an_object_has_one_phase_at_a_time_and_none_when_it_is_gone() -> None:
    metrics = Metrics()
    world = World()
    world.reconcile()
    metrics.saw("team", "demo", Status.model_validate(world.status))
    world.settle()
    serving = Status.model_validate(world.status)
    metrics.saw("team", "demo", serving)
    metrics.saw("team", "demo", serving)
    told = [s for m in metrics.registry.collect() for s in m.samples if "object_status" in s.name]
    labels = {"namespace": "team", "name": "demo", "phase": "Serving", "reason": ""}
    assert [(s.labels, s.value) for s in told] == [(labels, 1)]
    metrics.saw("team", "demo", None)
    assert value(metrics, "object_status", **labels) is None


async def test_the_queue_tells_waits_looks_retries_and_depth() -> None:
    clock, gate = FakeClock(), asyncio.Event()
    metrics = Metrics(clock.monotonic)

    async def work(key: str) -> None:
        if key == "known":
            raise TryLater("it is away")
        if key == "bug":
            raise ValueError
        await gate.wait()

    queue = WorkQueue(work, clock, jitter=lambda: 1.0, meter=metrics)
    metrics.follow_queue(queue.depth)
    task = asyncio.create_task(queue.run(1))
    for key in ("known", "bug", "held", "behind"):
        queue.add(key)
    await settle()
    assert value(metrics, "workqueue_depth") == 1
    clock.now = 0.5  # before the failed ones are due again
    gate.set()
    await settle()
    assert value(metrics, "workqueue_depth") == 0
    assert value(metrics, "workqueue_retries_total", cause="known") == 1
    assert value(metrics, "workqueue_retries_total", cause="error") == 1
    assert value(metrics, "workqueue_work_duration_seconds_count") == 4
    assert value(metrics, "workqueue_work_duration_seconds_sum") == 0.5
    assert value(metrics, "workqueue_queue_duration_seconds_sum") == 0.5
    queue.stop()
    await asyncio.wait_for(task, 5)


def test_a_watch_ages_until_it_tells_something() -> None:
    clock = FakeClock()
    metrics = Metrics(clock.monotonic)
    metrics.watched("jobs")
    clock.now = 40.0
    assert value(metrics, "watch_age_seconds", resource="jobs") == 40.0
    metrics.watched("jobs")
    assert value(metrics, "watch_age_seconds", resource="jobs") == 0.0


@pytest.mark.parametrize(("code", "told"), [(200, "200"), (409, "409"), (None, "none")])
def test_calls_are_counted_by_verb_and_code(code: int | None, told: str) -> None:
    metrics = Metrics()
    metrics.called("patch", "loradeployments/status", code, 0.2)
    labels: dict[str, Any] = {"verb": "patch", "resource": "loradeployments/status", "code": told}
    assert value(metrics, "api_requests_total", **labels) == 1
    assert value(metrics, "api_request_duration_seconds_sum", verb="patch") == 0.2


async def test_a_scrape_reads_all_of_it_over_http(unused_tcp_port: int) -> None:
    metrics = Metrics()
    lag = asyncio.create_task(metrics.follow_loop())
    runner = await serve_metrics(metrics, "127.0.0.1", unused_tcp_port, "/metrics")
    try:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{unused_tcp_port}/metrics")
    finally:
        await runner.cleanup()
        lag.cancel()
        with suppress(asyncio.CancelledError):
            await lag
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    for name in ("build_info", "workqueue_depth", "event_loop_lag_seconds_bucket"):
        assert f"lora_operator_{name}" in answer.text
