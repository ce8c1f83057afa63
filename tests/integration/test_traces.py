"""The trace of a run, from an operator on a real API server to a receiver of OTLP over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from operator_stage import OperatorStage
from otlp_receiver import Receiver, read

pytestmark = pytest.mark.integration
FIRST = ["resolve", "merge"]
RUN = [*FIRST, "quantize", "evaluate", "benchmark", "report", "publish", "verify", "run"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().served() as receiver:
        yield receiver


@pytest.fixture
def stage(
    control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path, receiver: Receiver
) -> Iterator[OperatorStage]:
    traced = {"TRACING_ENDPOINT": receiver.endpoint, "LOG_FORMAT": "json"}
    with OperatorStage(control_plane, kubectl, tmp_path, **traced) as running:
        yield running


@pytest.mark.fault("F3")
def test_a_killed_operator_goes_on_with_the_same_trace_and_sends_nothing_twice(
    stage: OperatorStage, receiver: Receiver
) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("the first spans are there", lambda: receiver.names() == FIRST)
    stage.operator.kill()
    stage.stages.held.clear()
    stage.operator.start()
    stage.wait_for("Ready", "True")
    stage.until("the run has ended", lambda: "run" in receiver.names())
    stage.operator.stop()
    assert sorted(receiver.names()) == sorted(RUN)
    [trace] = {s.trace_id.hex() for s in receiver.spans}
    run = receiver.span("run")
    assert {s.parent_span_id for s in receiver.spans if s is not run} == {run.span_id}
    assert read(run.attributes)["lora.run"] == stage.object()["status"]["run"]["id"]

    about = [line for line in map(json.loads, stage.operator.log.splitlines()) if "run" in line]
    assert {line["trace_id"] for line in about} == {trace}
    assert {line["run"] for line in about} == {read(run.attributes)["lora.run"]}

    stage.operator.start()
    stage.stays("nothing more is sent", lambda: len(receiver.spans) == len(RUN))
    stage.operator.stop()
    assert len(receiver.spans) == len(RUN), "not at its end either"


def test_a_receiver_that_is_away_is_in_the_way_of_nothing(
    control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path, unused_tcp_port: int
) -> None:
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    with OperatorStage(control_plane, kubectl, tmp_path, TRACING_ENDPOINT=nobody) as stage:
        stage.apply()
        stage.wait_for("Ready", "True")
        dropped = 'trace_spans_total{outcome="dropped"}'
        stage.until("what was dropped is counted", lambda: dropped in stage.operator.scrape())
        assert stage.operator.log.count(f"{nobody}/v1/traces does not take them") == 1
        assert "Traceback" not in stage.operator.log
