"""Which spans a trace is told of, while a planner's world lives through its statuses."""

from typing import Any

from lora_api.jobcontract import Reason, StageFailure
from lora_api.status import Status
from lora_operator.observed import ObservedObject
from lora_operator.spans import SpanRecord, spans_of, trace_id
from planning_world import WITH_CANDIDATES, World

LINE = ["resolve", "merge", "quantize", "evaluate", "benchmark"]
RUN = [*LINE, "report", "publish", "verify", "run"]


class Traced:
    """A world, and the spans of every status that was written in it."""

    def __init__(self, **changes: Any) -> None:
        self.world = World(changes=changes)
        self.spans: list[SpanRecord] = []

    def look(self) -> bool:
        """One look, as the reconciler makes it; whether anything was written."""
        before, writes = Status.model_validate(self.world.status), self.world.writes
        self.world.reconcile()
        if self.world.writes == writes:
            return False
        self.spans += spans_of(self.parent, before, self.status, self.world.now)
        return True

    def settle(self) -> None:
        """Until nothing happens any more."""
        for _ in range(400):
            if self.look():
                continue
            self.world.now += 30
            if not self.world.step_forward():
                return
        raise AssertionError(f"does not settle: {self.world.told()}")

    def run_until(self, stage: str) -> None:
        """Until a Job of this stage is under way."""
        while stage not in [self.world.jobs[n].stage for n in self.world.unfinished_jobs()]:
            if not self.look():
                self.world.now += 30
                self.world.step_forward()

    @property
    def parent(self) -> ObservedObject:
        return self.world.observe().parent

    @property
    def status(self) -> Status:
        return Status.model_validate(self.world.status)

    def names(self) -> list[str]:
        return [s.name for s in self.spans]

    def span(self, name: str) -> SpanRecord:
        [found] = [s for s in self.spans if s.name == name]
        return found


def settled(**changes: Any) -> Traced:
    traced = Traced(**changes)
    traced.settle()
    return traced


def test_a_run_is_one_trace_with_a_span_for_each_stage_under_one_for_the_run() -> None:
    traced = settled()
    assert traced.names() == RUN
    assert len({s.trace_id for s in traced.spans}) == 1
    assert len({s.span_id for s in traced.spans}) == len(RUN)
    run = traced.span("run")
    assert run.parent_id == ""
    assert {s.parent_id for s in traced.spans if s is not run} == {run.span_id}
    assert not any(s.error for s in traced.spans)


def test_ids_are_as_long_as_opentelemetry_has_them_and_are_in_no_other_run() -> None:
    traced = settled()
    [trace] = {s.trace_id for s in traced.spans}
    assert (len(trace), {len(s.span_id) for s in traced.spans}) == (32, {16})
    assert trace == trace_id(traced.parent.uid, traced.status.run)
    traced.world.edit(adapters=[{"uri": "s3://models/better"}])
    traced.settle()
    assert len({s.trace_id for s in traced.spans}) == 2


def test_the_run_lasts_from_its_resolve_until_it_serves() -> None:
    traced = settled()
    run, status = traced.span("run"), traced.status
    assert run.start == traced.span("resolve").start
    assert run.end >= max(s.end for s in traced.spans)
    assert status.run is not None
    assert status.run.completed_at
    assert run.attributes["lora.outcome"] == "Serving"
    assert run.attributes["lora.verdict"] == "Passed"
    assert run.attributes["lora.acceleratorSeconds"] == status.run.accelerator_seconds == 240


def test_a_span_says_what_its_stage_did() -> None:
    traced = settled()
    quantize = traced.span("quantize")
    stage = next(s for s in traced.status.stages if s.name == "quantize")
    assert quantize.attributes == {
        "k8s.namespace.name": traced.parent.namespace,
        "lora.name": traced.parent.name,
        "lora.uid": traced.parent.uid,
        "lora.run": traced.status.run and traced.status.run.id,
        "lora.stage": "quantize",
        "lora.candidate": "default",
        "lora.inputHash": stage.input_hash,
        "lora.digest": stage.digest,
        "lora.attempt": 1,
        "lora.reused": False,
        "lora.acceleratorSeconds": 60,
        "k8s.job.name": stage.job,
    }


def test_what_the_store_had_takes_no_time_and_says_so() -> None:
    traced = settled()
    traced.spans.clear()
    traced.world.recreate()
    traced.settle()
    assert sorted(traced.names()) == sorted(RUN)
    for stage in LINE[1:]:
        span = traced.span(stage)
        assert span.start == span.end
        assert span.attributes["lora.reused"] is True
        assert span.attributes["lora.acceleratorSeconds"] == 0


def test_each_attempt_has_a_span_and_a_failed_one_says_why() -> None:
    traced = Traced()
    world = traced.world
    traced.run_until("merge")
    world.now += 7
    away = StageFailure(failure=Reason.STORE_UNREACHABLE, message="it is away")
    world.end_stage("merge", away, exit_code=3)
    traced.look()
    world.now += 600
    traced.settle()
    merges = [s for s in traced.spans if s.name == "merge"]
    assert [s.attributes["lora.attempt"] for s in merges] == [1, 2]
    assert [s.error for s in merges] == ["StoreUnreachable: it is away", ""]
    assert merges[0].attributes["error.type"] == "StoreUnreachable"
    assert len({s.span_id for s in merges}) == 2
    assert traced.names()[-1] == "run"


def test_a_resolve_that_fails_before_the_run_is_known_has_a_trace_of_its_own() -> None:
    traced = Traced()
    traced.look()
    missing = StageFailure(failure=Reason.CREDENTIALS_MISSING, message="create it")
    traced.world.end_stage("resolve", missing, exit_code=3)
    traced.look()
    [failed] = traced.spans
    assert (failed.parent_id, failed.error) == ("", "CredentialsMissing: create it")
    traced.world.now += 600
    traced.settle()
    assert failed.trace_id not in {s.trace_id for s in traced.spans[1:]}


def test_a_failed_gate_ends_the_run_with_an_error() -> None:
    traced = Traced()
    traced.world.task_quality = {128: 2.0}
    traced.settle()
    run = traced.span("run")
    assert run.error.startswith("GatesFailed: ")
    assert run.attributes["error.type"] == run.attributes["lora.outcome"] == "GatesFailed"
    assert run.attributes["lora.verdict"] == "Failed"


def test_candidates_are_told_apart() -> None:
    traced = Traced(**WITH_CANDIDATES)
    traced.world.task_quality = {128: 2.0}
    traced.settle()
    tried = [s.attributes["lora.candidate"] for s in traced.spans if s.name == "quantize"]
    assert tried == ["default", "g64"]


def test_a_run_whose_inputs_change_meanwhile_ends_there() -> None:
    traced = Traced()
    world = traced.world
    traced.run_until("merge")
    first = traced.status.run
    world.edit(adapters=[{"uri": "s3://models/better"}])
    traced.settle()
    ended = [s for s in traced.spans if s.name == "run"]
    assert [s.attributes["lora.outcome"] for s in ended] == ["Superseded", "Serving"]
    assert [s.error for s in ended] == ["", ""]
    assert ended[0].trace_id == trace_id(traced.parent.uid, first) != ended[1].trace_id


def test_a_retry_of_what_had_failed_is_a_trace_of_its_own() -> None:
    traced = Traced()
    world = traced.world
    world.task_quality = {128: 2.0}
    traced.settle()
    world.task_quality = {}
    world.ask_for_a_retry()
    traced.settle()
    runs = [s for s in traced.spans if s.name == "run"]
    assert len({s.trace_id for s in runs}) == len(runs) == 2


def test_what_happens_to_a_run_that_serves_ends_it_no_second_time() -> None:
    traced = settled()
    traced.spans.clear()
    traced.world.edit(**{"serving.replicas": 2})
    traced.settle()
    assert traced.names() == []


def test_a_run_of_an_operator_that_told_no_end_of_it_has_ended_when_it_became_ready() -> None:
    traced = settled()
    run = traced.world.status["run"]
    ended = run.pop("completedAt")
    traced.world.now += 86400
    traced.settle()
    assert traced.world.status["run"]["completedAt"] == ended


def test_under_a_pin_a_new_run_has_not_ended_though_the_pinned_release_serves() -> None:
    traced = settled()
    release = traced.status.releases[0].id
    traced.world.edit(**{"serving.pin": release})
    traced.settle()
    traced.world.edit(adapters=[{"uri": "s3://models/better"}])
    traced.settle()
    assert traced.status.run is None or not traced.status.run.completed_at
