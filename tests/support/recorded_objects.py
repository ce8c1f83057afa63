"""Objects as GitOps tools see them: what the planner writes at each phase, and what it means.

`python -m recorded_objects` writes them beside Argo CD's health check, with its table of cases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from gitops import HEALTH
from lora_api import API_VERSION, KIND
from lora_api.jobcontract import Reason, StageFailure
from lora_api.status import Status
from lora_operator.denial import with_denial
from planning_world import World, lose_a_pod, serving_world

Json = dict[str, Any]
GOOD, BAD, GOING = "Healthy", "Degraded", "Progressing"
NEXT: Json = {"quantization.gptq": {"bits": 4, "groupSize": 64}}


@dataclass(frozen=True)
class Phase:
    """One moment of an object's life.

    Attributes:
        verdict: In Argo CD's words.
        story: How the world comes to it.
    """

    verdict: str
    story: Callable[[], World]


def document(world: World) -> Json:
    """The object as it is read back."""
    metadata = {"name": "demo", "namespace": "team", "generation": world.generation}
    head: Json = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}
    return head | {"spec": world.spec, "status": world.status or Status().to_json()}


def _running(stage: str, **changes: Any) -> Callable[[], World]:
    def story() -> World:
        world = World(changes=changes)
        world.run_until(stage)
        world.rest()
        return world

    return story


def _rolling_out(*, edited: bool = False) -> World:
    world = serving_world() if edited else World()
    if edited:
        world.edit(**NEXT)
    world.serving_pods_start = False
    while not world.unready_deployments():
        writes = world.writes
        world.reconcile()
        if world.writes == writes:
            world.step_forward()
    world.rest()
    return world


def _without_credentials() -> World:
    world = World()
    world.reconcile()
    missing = StageFailure(failure=Reason.CREDENTIALS_MISSING, message="Secret s3: create it")
    world.end_stage("resolve", missing, exit_code=3)
    world.rest()
    return world


def _refused(stage: str) -> World:
    world = World()
    world.run_until(stage)
    refused = StageFailure(failure=Reason.INVALID_INPUT, message="use another file")
    world.end_stage(stage, refused, exit_code=2)
    world.rest()
    return world


def _edited(**changes: Any) -> World:
    world = serving_world()
    world.edit(**changes)
    return world


def _measuring_again() -> World:
    world = _edited(**NEXT)
    world.run_until("quantize")
    world.rest()
    return world


def _gates_failed(*, edited: bool) -> World:
    world = serving_world() if edited else World()
    world.task_quality = {64: 1.5, 128: 1.5}
    if edited:
        world.edit(**NEXT)
    world.settle()
    assert world.condition("Ready") == ("False", "GatesFailed")
    return world


def _unreadable() -> World:
    world = World()
    world.spec = {}
    world.reconcile()
    return world


def _pods_missing() -> World:
    world = serving_world(**{"serving.replicas": 2})
    (name,) = world.deployments
    world.serving_pods_start = False
    lose_a_pod(world, name)
    world.rest()
    return world


def _denied() -> World:
    world = serving_world()
    before = Status.model_validate(world.status)
    message = 'the API server denies "create" of jobs: no quota'
    denied = with_denial(before, before, message, world.generation, "2026-11-22T10:00:00Z")
    world.status = denied.to_json()
    return world


PHASES = {
    "new": Phase(GOING, World),
    **{
        f"running-{stage}": Phase(GOING, _running(stage))
        for stage in (
            "resolve", "merge", "quantize", "evaluate", "benchmark", "report", "publish", "verify",
        )
    },
    "rolling-out": Phase(GOING, _rolling_out),
    "waiting-for-a-secret": Phase(GOING, _without_credentials),
    "refused-input": Phase(BAD, lambda: _refused("merge")),
    "unreadable-spec": Phase(BAD, _unreadable),
    "gates-failed": Phase(BAD, lambda: _gates_failed(edited=False)),
    "serving": Phase(GOOD, serving_world),
    "edited-not-seen": Phase(GOING, lambda: _edited(**NEXT)),
    "edited-measuring-while-the-last-serves": Phase(GOING, _measuring_again),
    "edited-rolling-out-while-the-last-serves": Phase(GOING, lambda: _rolling_out(edited=True)),
    "edited-gates-failed-while-the-last-serves": Phase(BAD, lambda: _gates_failed(edited=True)),
    "serving-with-pods-missing": Phase(GOING, _pods_missing),
    "serving-and-denied-a-right": Phase(GOING, _denied),
}  # fmt: skip


def files() -> dict[str, str]:
    """Path beside the health check, and content: the objects and Argo CD's table of cases."""
    objects = {name: document(phase.story()) for name, phase in PHASES.items()}
    tests = [
        {
            "healthStatus": {"status": PHASES[name].verdict, "message": _message(found)},
            "inputPath": f"testdata/{name}.yaml",
        }
        for name, found in objects.items()
    ]
    written = {f"testdata/{name}.yaml": _yaml(_brief(found)) for name, found in objects.items()}
    return written | {"health_test.yaml": _yaml({"tests": tests})}


def _brief(found: Json) -> Json:
    """Without what no health check reads."""
    kept = ("observedGeneration", "phase", "conditions")
    status = {key: value for key, value in found["status"].items() if key in kept}
    return {key: found[key] for key in ("apiVersion", "kind", "metadata")} | {"status": status}


def _message(found: Json) -> str:
    """What people are told: the condition that decides, of this generation."""
    generation = found["metadata"]["generation"]
    conditions = {
        c["type"]: c
        for c in found.get("status", {}).get("conditions", ())
        if c["observedGeneration"] == generation
    }
    if "Ready" not in conditions:
        return "waiting for the operator to look at this generation"
    told = conditions["Ready"]
    if conditions["Reconciling"]["status"] == "True" and told["status"] == "True":
        told = conditions["Reconciling"]
    return f"{told['reason']}: {told.get('message', '')}"


def _yaml(content: Json) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    for name, text in files().items():
        target = HEALTH.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
