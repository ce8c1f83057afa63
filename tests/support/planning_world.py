"""A tiny pure cluster and store for the planner: applies a plan, ends Jobs, loses things.

It is no stand-in for Kubernetes: it knows only what a plan can see. Its laws are those that the
planner relies on: names are unique, deletes are by uid, a result lies in the store before its Job
is complete, and status is written before the actions.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from builders import measurements, spec_document
from lora_api.digests import digest_of
from lora_api.gates import Measurements
from lora_api.jobcontract import (
    WORKING_STAGES,
    ExitCode,
    Reason,
    Release,
    Stage,
    StageCall,
    StageFailure,
    StageRequest,
    StageResult,
)
from lora_api.line import walk
from lora_api.runtimes import Runtime
from lora_api.spec import parse_spec
from lora_api.status import Status
from lora_operator.actions import (
    Action,
    ApplyDeployment,
    ApplyService,
    CreateJob,
    DeleteDeployment,
    DeleteJob,
    EmitEvent,
    GiveUpRelease,
)
from lora_operator.allowed import Allowed
from lora_operator.observed import (
    Observed,
    ObservedDeployment,
    ObservedJob,
    ObservedObject,
    ObservedPod,
    ObservedService,
)
from lora_operator.plan import Plan
from lora_operator.planning import plan
from lora_operator.settings import Settings

SETTINGS = Settings(
    jobs_image="jobs",
    quantize_image="quantize",
    serving_images={Runtime.TRANSFORMERS: "serve@sha256:1", Runtime.VLLM: "vllm@sha256:1"},
    allowed=Allowed(images=("engine:*",)),
)
Outcome = StageResult | StageFailure | str | None
"""What a Job ends with: a result, a failure, a crash's last log line, or None for the result that
the stage program makes."""


@dataclass
class World:
    """One object, its children, and the store."""

    changes: dict[str, Any] = field(default_factory=dict)
    task_quality: dict[int, float] = field(default_factory=dict)
    """Quantized task perplexity over merged, by group size; 1.01 where unset."""
    bucket_image: str = ""
    """The serving image that the bucket names for the object; the default one where unset."""

    def __post_init__(self) -> None:
        self.now = 1_800_000_000.0
        self.uids = 0
        self.spec = spec_document(**self.changes)
        self.uid, self.generation = self._uid(), 1
        self.status: dict[str, Any] = {}
        self.annotations: dict[str, str] = {}
        self.jobs: dict[str, ObservedJob] = {}
        self.requests: dict[str, StageRequest] = {}
        self.deployments: dict[str, ObservedDeployment] = {}
        self.service: ObservedService | None = None
        self.store: dict[str, StageResult] = {}
        self.contents: dict[str, str] = {}
        self.digest_of_uri: dict[str, str] = {}
        self.group_sizes: dict[str, int] = {}
        self.published: set[str] = set()
        self.records: dict[str, tuple[Release, str]] = {}
        self.collected: list[str] = []
        self.verified: set[str] = set()
        self.worked: list[str] = []
        self.created: list[str] = []
        self.events: list[EmitEvent] = []
        self.selected: list[str] = []
        self.writes = 0
        self.serving_pods_start = True

    # --- the user ---------------------------------------------------------------------------

    def edit(self, **changes: Any) -> None:
        """Apply a changed spec."""
        self.changes = self.changes | changes
        self.spec = spec_document(**self.changes)
        self.generation += 1

    def ask_for_a_retry(self, token: str = "now") -> None:
        """Set the retry annotation."""
        self.annotations["lora-operator.dev/retry-requested-at"] = token

    def recreate(self) -> None:
        """Delete the object and apply it again: children go with their owner, the store stays."""
        self.uid, self.generation = self._uid(), 1
        self.status, self.jobs, self.deployments, self.service = {}, {}, {}, None

    # --- the operator -----------------------------------------------------------------------

    def observe(self) -> Observed:
        """What the operator sees."""
        parent = ObservedObject(
            "team", "demo", self.uid, self.generation, "1", self.spec, self.status, self.annotations
        )
        return Observed(
            parent, tuple(self.jobs.values()), tuple(self.deployments.values()), self.service
        )

    def plan(self) -> Plan:
        """The plan of this moment."""
        return plan(self.observe(), SETTINGS, self.now)

    def reconcile(self) -> Plan:
        """Plan, write status, carry out."""
        made = self.plan()
        self.write_status(made)
        self.carry_out(made, len(made.actions))
        return made

    def reconcile_and_crash(self, actions: int) -> None:
        """Plan, write status, and carry out so many actions only."""
        made = self.plan()
        self.write_status(made)
        self.carry_out(made, actions)

    def reconcile_without_status(self, actions: int) -> None:
        """Plan and carry out so many actions; the status is lost."""
        self.carry_out(self.plan(), actions)

    def carry_out(self, made: Plan, actions: int) -> None:
        """The executor."""
        for action in made.actions[:actions]:
            self._do(action)

    def write_status(self, made: Plan) -> None:
        """The status writer: nothing is written when nothing changed."""
        document = made.status.to_json()
        Status.model_validate(document)  # bounds
        if document != self.status:
            self.status = document
            self.writes += 1

    def settle(self, looks: int = 400) -> None:
        """Let everything happen until nothing does any more."""
        for _ in range(looks):
            writes = self.writes
            made = self.reconcile()
            if self.writes != writes:
                continue
            if self.step_forward():
                continue
            if made.look_again_seconds is None:
                return
            self.now += made.look_again_seconds
        raise AssertionError(f"does not settle: {self.told()}")

    def rest(self, looks: int = 50) -> Plan:
        """Reconcile until nothing is written, without anything happening in the world."""
        for _ in range(looks):
            writes = self.writes
            made = self.reconcile()
            if self.writes == writes:
                return made
        raise AssertionError(f"writes for ever: {self.told()}")

    def run_until(self, stage: str, looks: int = 100) -> ObservedJob:
        """Let things happen until a Job of this stage is under way."""
        for _ in range(looks):
            writes = self.writes
            self.reconcile()
            for job in self.jobs.values():
                if job.stage == stage and not (job.complete or job.failed):
                    return job
            if self.writes == writes and not self.step_forward():
                self.now += 5
        raise AssertionError(f"{stage} does not start: {self.told()}")

    # --- what happens in the cluster --------------------------------------------------------

    def start(self, name: str, **pod: Any) -> None:
        """The Job's container runs, or its pod is in the given state."""
        seen = {"container_started_at": self.now} | pod
        self._change_job(name, started_at=self.now, pods=(ObservedPod(f"{name}-pod", "p", **seen),))

    def end(self, name: str, outcome: Outcome = None, exit_code: int = 0) -> None:
        """The Job ends; by default with what its program makes of the world."""
        job = self.jobs[name]
        if outcome is None:
            outcome = self.program(self.requests[name])
            exit_code = ExitCode.WAITING if isinstance(outcome, StageFailure) else exit_code
        pod = ObservedPod(
            f"{name}-pod", "p", exit_code=exit_code or 0, container_started_at=self.now
        )
        if isinstance(outcome, StageResult):
            self._change_job(
                name, complete=True, outcome=outcome, pods=(pod,), finished_at=self.now,
                started_at=job.started_at or self.now,
            )  # fmt: skip
            return
        failure = outcome if isinstance(outcome, StageFailure) else None
        self._change_job(
            name, failed=True, outcome=failure, finished_at=self.now,
            log_tail=outcome if isinstance(outcome, str) else "",
            pods=(replace(pod, exit_code=exit_code or 1),), started_at=job.started_at or self.now,
        )  # fmt: skip

    def end_stage(self, stage: str, outcome: Outcome = None, exit_code: int = 0) -> str:
        """The Job of this stage that is under way ends; its name."""
        name = next(n for n in self.unfinished_jobs() if self.jobs[n].stage == stage)
        self.end(name, outcome, exit_code)
        return name

    def lose_result(self, name: str) -> None:
        """The Job completes, its work is in the store, but its pod is gone with the message."""
        self.end(name)
        self._change_job(name, outcome=None, pods=())

    def make_ready(self, name: str) -> None:
        """All pods of a Deployment become Ready."""
        d = self.deployments[name]
        pods = tuple(
            ObservedPod(f"{name}-{i}", f"p{i}", ip=f"10.0.0.{i + 1}", ready=True, phase="Running",
                        container_started_at=self.now)
            for i in range(d.replicas)
        )  # fmt: skip
        self.deployments[name] = replace(
            d, pods=pods, available=True, ready_replicas=d.replicas, updated_replicas=d.replicas
        )

    def unfinished_jobs(self) -> list[str]:
        """Names of Jobs under way."""
        return [n for n, j in self.jobs.items() if not (j.complete or j.failed)]

    def unready_deployments(self) -> list[str]:
        """Names of Deployments whose pods still come up."""
        return [
            n
            for n, d in self.deployments.items()
            if not d.gave_up and (not d.available or d.ready_replicas != d.replicas)
        ]

    def step_forward(self) -> bool:
        """One thing happens; False when nothing can."""
        for name in self.unfinished_jobs():
            self.end(name)
            return True
        if self.serving_pods_start:
            for name in self.unready_deployments():
                self.make_ready(name)
                return True
        return False

    # --- what people see --------------------------------------------------------------------

    def condition(self, kind: str) -> tuple[str, str]:
        """(status, reason) of a condition."""
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    def message(self, kind: str) -> str:
        """A condition's message."""
        return str(next(c["message"] for c in self.status["conditions"] if c["type"] == kind))

    def stage(self, name: str) -> dict[str, Any]:
        """A stage in status."""
        return next(s for s in self.status["stages"] if s["name"] == name)

    def told(self) -> str:
        """The story for a failed assertion."""
        conditions = {
            c["type"]: (c["status"], c["reason"], c.get("message", ""))
            for c in self.status.get("conditions", [])
        }
        jobs = [(j.stage, j.complete, j.failed) for j in self.jobs.values()]
        return f"{conditions}\n{self.status.get('stages')}\n{jobs}\n{self.deployments}"

    # --- inner ------------------------------------------------------------------------------

    def _uid(self) -> str:
        self.uids += 1
        return f"uid-{self.uids}"

    def _change_job(self, name: str, **change: Any) -> None:
        self.jobs[name] = replace(self.jobs[name], **change)

    def _do(self, action: Action) -> None:
        before = (dict(self.jobs), dict(self.deployments), self.service)
        doers: dict[type, Callable[[Any], None]] = {
            CreateJob: self._create_job,
            DeleteJob: self._delete_job,
            ApplyDeployment: self._apply_deployment,
            GiveUpRelease: self._give_up,
            DeleteDeployment: self._delete_deployment,
            ApplyService: self._apply_service,
            EmitEvent: self.events.append,
        }
        doers[type(action)](action)
        self.writes += before != (self.jobs, self.deployments, self.service)

    def _create_job(self, action: CreateJob) -> None:
        call = action.request.call
        if action.name in self.jobs:
            return
        self.created.append(f"{call.stage}{':' + call.candidate if call.candidate else ''}")
        self.requests[action.name] = StageRequest.model_validate(action.request.to_json())
        self.jobs[action.name] = ObservedJob(
            action.name, self._uid(), call.stage.value, call.input_hash, call.candidate,
            created_at=self.now,
        )  # fmt: skip

    def _delete_job(self, action: DeleteJob) -> None:
        if action.name in self.jobs and self.jobs[action.name].uid == action.uid:
            assert self.jobs[action.name].ours, "a stranger's Job is never touched"
            del self.jobs[action.name]

    def _apply_deployment(self, action: ApplyDeployment) -> None:
        assert action.release in self.published, "only what was published rolls out"
        there = self.deployments.get(action.name)
        new = there or ObservedDeployment(
            action.name, self._uid(), action.release, action.digest, created_at=self.now
        )
        self.deployments[action.name] = replace(
            new,
            candidate=action.candidate,
            benchmark=action.benchmark,
            recipe=dict(action.recipe),
            replicas=action.replicas,
            gave_up="",
        )

    def _give_up(self, action: GiveUpRelease) -> None:
        there = self.deployments[action.name]
        assert not (self.service and self.service.release == there.release), "it serves"
        self.deployments[action.name] = replace(
            there, gave_up=action.reason, replicas=0, ready_replicas=0, available=False, pods=()
        )

    def _delete_deployment(self, action: DeleteDeployment) -> None:
        there = self.deployments.get(action.name)
        if there and there.uid == action.uid:
            assert not (self.service and self.service.release == there.release), "it serves"
            del self.deployments[action.name]

    def _apply_service(self, action: ApplyService) -> None:
        if not self.service or self.service.release != action.release:
            assert action.release in self.published, "nothing ungated is ever selected"
            assert action.release in self.verified, "nothing unverified is ever selected"
            self.selected.append(action.release)
        self.service = ObservedService(action.name, action.release, switch=action.switch)

    def program(self, request: StageRequest) -> Outcome:
        """What the real stage program would do; a working stage adopts what the store has."""
        call = request.call
        if call.stage is Stage.RESOLVE:
            return self._resolved(request)
        if call.stage in WORKING_STAGES:
            if call.input_hash not in self.store:
                self.store[call.input_hash] = self._work(call)
            return self.store[call.input_hash]
        result = StageResult(stage=call.stage, input_hash=call.input_hash)
        if call.stage is Stage.REPORT:
            return result.model_copy(update={"report_uri": f"s3://reports/{request.run_id}.html"})
        if call.stage is Stage.RECALL:
            return self._recalled(request)
        if call.stage is Stage.COLLECT:
            kept = set(call.parameters["keep"])
            assert self.service is None or self.service.release in kept
            assert {d.release for d in self.deployments.values() if not d.gave_up} <= kept
            self.collected += sorted(set(self.records) - kept)
            self.records = {r: known for r, known in self.records.items() if r in kept}
            return result
        assert request.release is not None
        if call.stage is Stage.PUBLISH:
            self.published.add(request.release.id)
            self.records[request.release.id] = (request.release, call.parents["benchmark"])
        else:
            assert request.endpoints
            self.verified.add(request.release.id)
        return result

    def _recalled(self, request: StageRequest) -> Outcome:
        wanted = request.call.parameters["release"]
        if wanted not in self.records:
            return StageFailure(failure=Reason.SOURCE_NOT_FOUND, message="no such release")
        release, benchmark = self.records[wanted]
        return StageResult(
            stage=Stage.RECALL, input_hash=request.call.input_hash, digest=release.artifact,
            release=release, candidate="default", benchmark=benchmark,
        )  # fmt: skip

    def _work(self, call: StageCall) -> StageResult:
        self.worked.append(f"{call.stage}{':' + call.candidate if call.candidate else ''}")
        makes = call.stage in (Stage.MERGE, Stage.QUANTIZE)
        digest = digest_of(["artifact", call.input_hash]) if makes else ""
        if call.stage is Stage.QUANTIZE:
            self.group_sizes[digest] = call.parameters.get("groupSize", 0)
        return StageResult(
            stage=call.stage, input_hash=call.input_hash, digest=digest,
            measurements=self._measured(call), seconds=60, accelerator_seconds=60,
        )  # fmt: skip

    def _measured(self, call: StageCall) -> Measurements:
        if call.stage is Stage.BENCHMARK:
            return measurements()[1]
        if call.stage is not Stage.EVALUATE:
            return {}
        worse = self.task_quality.get(self.group_sizes[call.parents["quantized"]], 1.01)
        return measurements(task_ratio=worse)[0]

    def _resolved(self, request: StageRequest) -> Outcome:
        assert request.spec is not None
        spec = parse_spec(request.spec)
        pins = {}
        for name, source in request.sources.items():
            if self.contents.get(source.uri) == "missing":
                return StageFailure(
                    failure=Reason.SOURCE_NOT_FOUND, message=f"{source.uri} is not there; upload it"
                )
            content = self.contents.get(source.uri, "1")
            digest = self.digest_of_uri.get(source.uri) or digest_of([source.key, content])
            pins[name] = source.model_copy(update={"digest": digest, "revision": content})
        digests = {n: p.digest for n, p in pins.items()}
        image = spec.serving.image or self.bucket_image or request.default_image
        line = walk(spec, "demo", digests, image, lambda c: self.store.get(c.input_hash))
        return StageResult(
            stage=Stage.RESOLVE, input_hash=request.call.input_hash, pins=pins, image=image,
            done=[r for _, r in line.done],
        )  # fmt: skip


def lose_a_pod(world: World, name: str) -> None:
    """The first pod of a Deployment crashes and is started again."""
    d = world.deployments[name]
    crashed = replace(d.pods[0], ready=False, restarts=1)
    world.deployments[name] = replace(
        d, pods=(crashed, *d.pods[1:]), ready_replicas=d.ready_replicas - 1, available=False
    )


def serving_world(**changes: Any) -> World:
    """A world whose object serves its first release."""
    return deepcopy(_settled(json.dumps(changes, sort_keys=True)))


@cache
def _settled(changes: str) -> World:
    world = World(changes=json.loads(changes))
    world.settle()
    assert world.condition("Ready")[0] == "True", world.told()
    return world


WITH_CANDIDATES: Mapping[str, Any] = {
    "quantization.candidates": [
        {"name": "g64", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 64}},
        {"name": "g32", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 32}},
    ]
}
