"""One look: what is written, in which order, and what is not."""

from dataclasses import replace
from typing import Any

import pytest

from builders import spec_document
from fake_clock import FakeClock
from fake_cluster import FakeCluster
from lora_api.conditions import ConditionStatus, ConditionType, set_condition
from lora_api.jobcontract import (
    Progress,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_api.naming import job_name, labels
from lora_api.status import ProgressStatus, StageState, StageStatus, Status
from lora_operator.actions import ApplyService, CreateJob, DeleteJob, EmitEvent
from lora_operator.cluster import (
    JOBS,
    LORA_DEPLOYMENTS,
    PODS,
    SERVICES,
    Conflict,
    Denied,
    Unavailable,
)
from lora_operator.observed import Observed
from lora_operator.plan import Plan
from lora_operator.reconcile import ObjectKey, Reconciler
from lora_operator.settings import Settings
from lora_operator.workqueue import TryLater

KEY = ObjectKey("team", "demo")
SETTINGS = Settings(jobs_image="jobs", quantize_image="quantize", progress_seconds=30)
CALL = StageCall(stage=Stage.MERGE)
JOB = CreateJob(
    job_name("demo", "uid-demo", "merge", CALL.input_hash),
    StageRequest(
        call=CALL,
        run=RunReference(namespace="team", name="demo", uid="uid-demo"),
        store=StoreReference(uri="s3://models/store", scope="team"),
    ),
)
EVENT = EmitEvent("Warning", "AccessDenied", "no access; grant it")


class Bench:
    """A reconciler over a fake cluster, with a plan that the test decides."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.cluster, self.clock = FakeCluster(), FakeClock()
        self.cluster.add(LORA_DEPLOYMENTS, lora_deployment())
        self.planned = Plan((), Status())
        self.seen: list[Observed] = []
        self.reconciler = Reconciler(
            self.cluster, settings, self._plan, self.clock, lambda: 1_800_000_000.0
        )

    def _plan(self, observed: Observed, settings: Settings, now: float) -> Plan:
        self.seen.append(observed)
        return self.planned

    async def look(self) -> float | None:
        return await self.reconciler.reconcile(KEY)

    @property
    def verbs(self) -> list[str]:
        return [f"{verb} {plural}" for verb, plural, _ in self.cluster.writes]

    @property
    def status(self) -> Status:
        document = self.cluster.objects["loradeployments", "team", "demo"]
        return Status.model_validate(document["status"])


def lora_deployment(**metadata: Any) -> dict[str, Any]:
    identity = {"name": "demo", "namespace": "team", "uid": "uid-demo", "generation": 3}
    return {"metadata": identity | metadata, "spec": spec_document()}


@pytest.fixture
def stage() -> Bench:
    return Bench()


def told(progress: int = 0, message: str = "") -> Status:
    running = StageStatus(
        name="merge",
        state=StageState.RUNNING,
        message=message,
        progress=ProgressStatus(done=progress, total=100, unit="tensors"),
    )
    return Status(stages=[running])


async def test_status_comes_first_then_events_then_actions(stage: Bench) -> None:
    stage.planned = Plan((JOB, EVENT), told(), 5.0)
    assert await stage.look() == 5.0
    assert stage.verbs == ["status loradeployments", "create events", "create jobs"]


async def test_on_a_stale_picture_nothing_is_done_at_all(stage: Bench) -> None:
    stage.planned = Plan((JOB, EVENT), told())
    stage.cluster.refusals["status", "loradeployments"] = Conflict("modified")
    with pytest.raises(TryLater, match="modified"):
        await stage.look()
    assert stage.verbs == []


async def test_the_second_equal_look_writes_nothing(stage: Bench) -> None:
    stage.planned = Plan((JOB,), told())
    await stage.look()
    stage.cluster.writes.clear()
    stage.planned = Plan((), told())
    await stage.look()
    assert stage.verbs == []


async def test_mere_progress_is_written_every_30_s_and_everything_else_at_once(
    stage: Bench,
) -> None:
    written = []
    for second in range(0, 62, 2):
        stage.planned = Plan((), told(progress=second))
        await stage.look()
        if stage.cluster.writes:
            written.append(second)
            stage.cluster.writes.clear()
        await stage.clock.advance(2)
    assert written == [0, 30, 60]
    stage.planned = Plan((), told(progress=62, message="worst loss 0.02"))
    await stage.look()
    assert stage.verbs == ["status loradeployments"]


async def test_an_existing_job_of_ours_is_success(stage: Bench) -> None:
    stage.planned = Plan((JOB,), Status())
    await stage.look()
    await stage.look()
    assert stage.verbs == ["create jobs", "create jobs"]


async def test_a_service_is_applied_once_and_again_when_somebody_changed_it(stage: Bench) -> None:
    stage.planned = Plan((ApplyService("demo", "12345678"),), Status())
    await stage.look()
    await stage.look()
    assert stage.verbs == ["apply services"]
    live = stage.cluster.objects["services", "team", "demo"]
    live["spec"]["selector"] = {}
    await stage.look()
    assert stage.verbs == ["apply services"] * 2
    assert stage.cluster.objects["services", "team", "demo"]["spec"]["selector"]


async def test_an_apply_is_bound_to_the_very_version_that_was_read(stage: Bench) -> None:
    stage.planned = Plan((ApplyService("demo", "12345678"),), Status())
    await stage.look()
    before = stage.cluster.objects["services", "team", "demo"]["metadata"]
    stage.planned = Plan((ApplyService("demo", "87654321"),), Status())
    await stage.look()
    bound = stage.cluster.applied[-1]["metadata"]
    assert (bound["uid"], bound["resourceVersion"]) == (before["uid"], before["resourceVersion"])


async def test_somebody_elses_service_of_our_name_is_never_applied_to(stage: Bench) -> None:
    stage.cluster.add(SERVICES, {"metadata": {"name": "demo", "namespace": "team"}, "spec": {}})
    stage.planned = Plan((ApplyService("demo", "12345678"),), Status())
    await stage.look()
    assert stage.verbs == []


async def test_a_delete_takes_only_the_very_object_that_was_seen(stage: Bench) -> None:
    job = {"metadata": {"name": "old", "namespace": "team", "uid": "another"}}
    stage.cluster.add(JOBS, job)
    stage.planned = Plan((DeleteJob("old", "seen", "why"), DeleteJob("gone", "x", "why")), Status())
    await stage.look()
    assert ("jobs", "team", "old") in stage.cluster.objects


async def test_a_denied_action_is_told_at_the_next_look_and_forgotten_once_it_gets_through(
    stage: Bench,
) -> None:
    stage.planned = Plan((JOB,), told())
    stage.cluster.refusals["create", "jobs"] = Denied('the API server denies "create" of jobs: no')
    for _ in range(3):
        with pytest.raises(TryLater):
            await stage.look()
    ready = next(c for c in stage.status.conditions if c.type == ConditionType.READY)
    assert (ready.status, ready.reason) == ("Unknown", "ApiDenied")
    assert '"create" of jobs' in ready.message
    assert stage.verbs == [
        "status loradeployments", "status loradeployments", "create events",
    ]  # fmt: skip
    stage.cluster.refusals.clear()
    await stage.look()
    await stage.look()
    assert stage.status == told()


async def test_a_denied_read_is_told_at_once(stage: Bench) -> None:
    stage.cluster.refusals["list", "pods"] = Denied('the API server denies "list" of pods: no')
    with pytest.raises(TryLater):
        await stage.look()
    assert {c.reason for c in stage.status.conditions} == {"ApiDenied"}
    assert stage.seen == []


@pytest.mark.parametrize("verb", ["get", "list", "status"])
async def test_an_api_server_that_is_away_is_a_known_reason(stage: Bench, verb: str) -> None:
    for plural in ("loradeployments", "jobs"):
        stage.cluster.refusals[verb, plural] = Unavailable("no answer in time")
    stage.planned = Plan((JOB,), told())
    with pytest.raises(TryLater, match="no answer"):
        await stage.look()
    assert stage.verbs == []


async def test_an_object_that_is_gone_or_going_is_left_alone(stage: Bench) -> None:
    stage.planned = Plan((JOB,), told())
    gone = lora_deployment(deletionTimestamp="2026-11-22T10:00:00Z")
    stage.cluster.add(LORA_DEPLOYMENTS, gone)
    assert await stage.look() is None
    del stage.cluster.objects["loradeployments", "team", "demo"]
    assert await stage.look() is None
    assert (stage.verbs, stage.seen) == ([], [])


async def test_a_job_that_status_counts_on_is_seen_even_without_our_label(stage: Bench) -> None:
    foreign = {
        "metadata": {"name": JOB.name, "namespace": "team"},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    stage.cluster.add(JOBS, foreign)
    pending = StageStatus(name="merge", state=StageState.PENDING, job=JOB.name)
    stage.planned = Plan((), Status(stages=[pending]))
    await stage.look()
    await stage.look()
    assert [(j.name, j.ours) for j in stage.seen[-1].jobs] == [(JOB.name, False)]


async def test_progress_is_the_last_such_line_of_the_running_pod(stage: Bench) -> None:
    await run_a_pod(stage, {"running": {"startedAt": "2026-11-22T10:00:00Z"}})
    lines = [Progress(done=n, total=9, unit="layers").to_line() for n in (3, 4)]
    stage.cluster.logs["pod"] = "\n".join(["starting", *lines, "a warning"])
    await stage.look()
    (job,) = stage.seen[-1].jobs
    assert job.progress == Progress(done=4, total=9, unit="layers")
    assert job.outcome is None


async def test_a_pod_that_failed_without_a_document_leaves_its_last_words(stage: Bench) -> None:
    await run_a_pod(stage, {"terminated": {"exitCode": 1, "reason": "Error"}})
    stage.cluster.logs["pod"] = "\n".join(f"line {n}" for n in range(10))
    await stage.look()
    (job,) = stage.seen[-1].jobs
    assert job.log_tail.splitlines() == [f"line {n}" for n in range(5, 10)]
    assert job.pods[0].exit_code == 1


async def run_a_pod(stage: Bench, state: dict[str, Any]) -> None:
    stage.planned = Plan((JOB,), Status())
    await stage.look()
    stage.planned = replace(stage.planned, actions=())
    owner = stage.cluster.objects["jobs", "team", JOB.name]["metadata"]["uid"]
    stage.cluster.add(
        PODS,
        {
            "metadata": {
                "name": "pod", "namespace": "team", "labels": labels("demo"),
                "ownerReferences": [{"uid": owner, "controller": True}],
            },
            "status": {"containerStatuses": [{"name": "stage", "state": state}]},
        },
    )  # fmt: skip


async def test_a_linked_status_is_written_once() -> None:
    page = "https://docs.example/runbooks.html"
    stage = Bench(replace(SETTINGS, runbooks_url=page))
    missing = set_condition(
        [], ConditionType.READY, ConditionStatus.UNKNOWN, "AccessDenied", EVENT.message, 3,
        "2026-11-23T10:00:00Z",
    )  # fmt: skip
    stage.planned = Plan((), Status(conditions=missing))
    await stage.look()
    assert stage.status.conditions[0].message == f"{EVENT.message} ({page}#accessdenied)"
    written = list(stage.verbs)
    await stage.look()
    assert stage.verbs == written
