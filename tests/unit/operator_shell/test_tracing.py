"""Traces reach a real receiver by OTLP over HTTP, and one that is away does no harm."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from builders import spec_document
from fake_clock import FakeClock
from fake_cluster import FakeCluster
from lora_api.status import RunStatus, StageState, StageStatus, Status
from lora_operator.cluster import LORA_DEPLOYMENTS
from lora_operator.logs import LogFormat, formatter, log_about
from lora_operator.metrics import Metrics
from lora_operator.observed import ObservedObject
from lora_operator.plan import Plan
from lora_operator.reconcile import ObjectKey, Reconciler
from lora_operator.settings import Settings
from lora_operator.tracing import Tracer, tracing
from otlp_receiver import ERROR, Receiver, read
from planning_world import SETTINGS

PARENT = ObservedObject("team", "demo", "uid-1", 1, "7", {}, {}, {})
NOW = 1_800_000_000.0


def ran(*stages: str, reason: str = "") -> Status:
    """A status in which these stages have ended, by this reason if any."""
    state = StageState.FAILED if reason else StageState.SUCCEEDED
    times = {"started_at": "2027-01-15T07:00:00Z", "completed_at": "2027-01-15T07:00:30Z"}
    return Status(
        run=RunStatus(id="4be01c9a", started_at="2027-01-15T07:00:00Z"),
        stages=[
            StageStatus(name=s, state=state, input_hash=s, reason=reason, **times) for s in stages
        ],
    )


def spans(metrics: Metrics, outcome: str) -> float:
    told = metrics.registry.get_sample_value(
        "lora_operator_trace_spans_total", {"outcome": outcome}
    )
    return told or 0


async def test_a_receiver_gets_the_spans_as_they_were_told() -> None:
    metrics = Metrics()
    with Receiver().served() as receiver:
        async with tracing(f"{receiver.endpoint}/v1/traces", "1.2.3", "eu-1", metrics) as tracer:
            tracer.wrote(PARENT, Status(), ran("merge"), NOW)
            tracer.wrote(PARENT, ran("merge"), ran("merge", "quantize", reason="OutOfMemory"), NOW)
    merge, failed = receiver.spans[0], receiver.spans[-1]
    assert receiver.resources[0].items() >= {
        "service.name": "lora-operator", "service.version": "1.2.3", "k8s.cluster.name": "eu-1",
    }.items()  # fmt: skip
    assert merge.name == "merge"
    assert merge.end_time_unix_nano - merge.start_time_unix_nano == 30_000_000_000
    assert read(merge.attributes)["lora.run"] == "4be01c9a"
    assert (failed.status.code, failed.status.message) == (ERROR, "OutOfMemory: ")
    assert {s.trace_id for s in receiver.spans} == {merge.trace_id}
    assert {s.parent_span_id for s in receiver.spans} == {merge.parent_span_id}
    assert spans(metrics, "sent") == len(receiver.spans)
    assert spans(metrics, "dropped") == 0


async def test_two_operators_give_the_same_span_the_same_ids() -> None:
    with Receiver().served() as receiver:
        for _ in range(2):
            async with tracing(f"{receiver.endpoint}/v1/traces", "1", "", Metrics()) as tracer:
                tracer.wrote(PARENT, Status(), ran("merge"), NOW)
    first, second = receiver.spans
    assert (first.trace_id, first.span_id) == (second.trace_id, second.span_id)


@pytest.mark.parametrize("answer", [404, 400])
async def test_what_a_receiver_refuses_is_counted_and_told_once(
    answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    with Receiver().served() as receiver:
        receiver.answer = answer
        for _ in range(2):
            async with tracing(f"{receiver.endpoint}/v1/traces", "1", "", metrics) as tracer:
                tracer.wrote(PARENT, Status(), ran("merge", "quantize"), NOW)
    assert receiver.spans == []
    assert spans(metrics, "dropped") == 4
    told = [r for r in caplog.records if r.name.startswith(("opentelemetry", "lora_operator"))]
    assert len(told) == 2, "a line for each of the two that met it"
    assert "networkPolicy" in told[0].getMessage()


async def test_what_the_queue_cannot_hold_is_dropped_and_counted(unused_tcp_port: int) -> None:
    metrics = Metrics()
    tracer = Tracer(f"http://127.0.0.1:{unused_tcp_port}", "1", "", metrics, queued_spans=3)
    for _ in range(50):
        tracer.wrote(PARENT, Status(), ran("merge"), NOW)
    assert spans(metrics, "dropped") >= 40
    await tracer.close()
    assert spans(metrics, "dropped") == 50


async def test_a_look_tells_the_tracer_once_the_status_is_written() -> None:
    told: list[tuple[Status, Status]] = []

    class Listener:
        def wrote(self, parent: ObservedObject, before: Status, after: Status, now: float) -> None:
            told.append((before, after))

    written = ran("merge")
    cluster = FakeCluster()
    place = {"name": "demo", "namespace": "team", "generation": 1}
    cluster.add(LORA_DEPLOYMENTS, {"metadata": place, "spec": spec_document()})
    key = ObjectKey("team", "demo")
    reconciler = Reconciler(
        cluster, SETTINGS, lambda *_: Plan((), written), FakeClock(), tracer=Listener()
    )
    await reconciler.reconcile(key)
    await reconciler.reconcile(key)
    assert told == [(Status(), written)]


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    said = (
        "import lora_operator.__main__, sys; print(sorted(m for m in sys.modules if 'telem' in m))"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", ""),
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://traces.example/otlp/v1/traces", "https://traces.example/otlp/v1/traces"),
    ],
)
def test_an_address_without_a_path_gets_that_of_the_protocol(given: str, used: str) -> None:
    images = {"LORA_OPERATOR_JOBS_IMAGE": "j", "LORA_OPERATOR_QUANTIZE_IMAGE": "q"}
    settings = Settings.from_environment(images | {"LORA_OPERATOR_TRACING_ENDPOINT": given})
    assert settings.tracing_endpoint == used


@pytest.mark.parametrize("given", ["collector:4317", "grpc://collector:4317", "http://"])
def test_what_is_no_http_address_is_refused_at_start(given: str) -> None:
    images = {"LORA_OPERATOR_JOBS_IMAGE": "j", "LORA_OPERATOR_QUANTIZE_IMAGE": "q"}
    with pytest.raises(ValueError, match="write http://HOST:4318"):
        Settings.from_environment(images | {"LORA_OPERATOR_TRACING_ENDPOINT": given})


def test_a_json_line_carries_the_ids_of_what_it_is_about() -> None:
    def line() -> dict[str, Any]:
        record = logging.LogRecord("x", logging.INFO, "", 0, "created Job", (), None)
        found: dict[str, Any] = json.loads(formatter(LogFormat.JSON).format(record))
        return found

    log_about(object="team/demo", uid="uid-1", run="4be01c9a", trace_id="")
    about = {"object": "team/demo", "uid": "uid-1", "run": "4be01c9a"}
    assert line().items() >= about.items()
    assert "trace_id" not in line()
    log_about()
    assert not line().keys() & about.keys()
