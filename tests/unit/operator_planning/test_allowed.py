"""What an administrator closed is not reached through us, and is told before anything starts."""

from dataclasses import replace
from typing import Any

import pytest

from lora_api.runtimes import Runtime
from lora_api.status import Phase
from lora_operator.allowed import Allowed
from lora_operator.plan import Plan
from lora_operator.planning import plan
from planning_world import SETTINGS, World, serving_world

HUB: list[dict[str, Any]] = [{"name": "hub", "huggingFace": {"secretRef": {"name": "token"}}}]


MIRROR: list[dict[str, Any]] = [
    {"name": "hub", "huggingFace": {"endpoint": "https://Mirror.Internal.:8443/hub"}},
    {"name": "models", "s3": {"endpoint": "http://[FD00::7]:9000"}},
]
THROUGH_MIRROR = {
    "connections": MIRROR,
    "baseModel": {"uri": "hf://org/base", "connection": "hub"},
    "artifact": {"uri": "s3://b/p", "connection": "models"},
}


def planned(world: World, allowed: Allowed) -> Plan:
    return plan(world.observe(), replace(SETTINGS, allowed=allowed), world.now)


def conditions(made: Plan) -> dict[str, tuple[str, str, str]]:
    return {c.type: (c.status, c.reason, c.message) for c in made.status.conditions}


@pytest.mark.parametrize(
    ("changes", "allowed", "field"),
    [
        ({"serving.image": "evil:1"}, Allowed(images=("registry.example/*",)), "serving.image"),
        ({"serving.image": "evil:1"}, Allowed(), "serving.image"),
        ({"serving.serviceAccountName": "admin"}, Allowed(service_accounts=("models-*",)),
         "serving.serviceAccountName"),
        ({"jobs.defaults.serviceAccountName": "admin"}, Allowed(service_accounts=()),
         "jobs.defaults.serviceAccountName"),
        ({}, Allowed(secrets=("models-*",)), "connections[models].s3.secretRef.name"),
        ({"connections": HUB, "artifact": {"uri": "s3://b/p"}}, Allowed(secrets=("s3",)),
         "connections[hub].huggingFace.secretRef.name"),
        ({"provenance": {"signing": {"secretRef": {"name": "payroll"}}}},
         Allowed(secrets=("s3", "release-*")), "provenance.signing.secretRef.name"),
        ({"baseModel": {"uri": "pvc://payroll/model"}}, Allowed(claims=("models-*",)),
         "baseModel.uri"),
        ({"jobs.defaults.cache": {"persistentVolumeClaim": {"claimName": "payroll"}}},
         Allowed(claims=("models-*",)), "jobs.defaults.cache.persistentVolumeClaim.claimName"),
        ({"serving.modelVolume": {"persistentVolumeClaim": {"claimName": "payroll"}}},
         Allowed(claims=("models-*",)), "serving.modelVolume.persistentVolumeClaim.claimName"),
        ({"serving.runtime": "VLLM"}, Allowed(runtimes=("Transformers",)), "serving.runtime"),
        ({}, Allowed(endpoints=("*.internal",)), "connections[models].s3.endpoint"),
        ({"connections": MIRROR}, Allowed(endpoints=("fd00::7",)),
         "connections[hub].huggingFace.endpoint"),
        ({"connections": MIRROR}, Allowed(endpoints=("mirror.internal", "fd00::8")),
         "connections[models].s3.endpoint"),
        ({}, Allowed(endpoints=()), "connections[models].s3.endpoint"),
    ],
)  # fmt: skip
def test_a_name_that_is_not_allowed_starts_nothing_and_is_told(
    changes: dict[str, Any], allowed: Allowed, field: str
) -> None:
    made = planned(World(changes=changes), allowed)
    status, reason, message = conditions(made)["Ready"]
    assert (status, reason) == ("False", "NotAllowed")
    assert f"spec.{field} names" in message
    assert "chart's allowed." in message
    assert made.status.phase is Phase.STALLED
    assert [type(a).__name__ for a in made.actions] == ["EmitEvent"]


def test_an_image_that_serves_two_runtimes_is_listed_once() -> None:
    world = World(changes={"serving.image": "evil:1"})
    settings = replace(SETTINGS, allowed=Allowed(), serving_images=dict.fromkeys(Runtime, "one:1"))
    made = plan(world.observe(), settings, world.now)
    assert "does not allow (one:1);" in conditions(made)["Ready"][2]


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"serving.image": "registry.example/vllm:1"}, Allowed(images=("registry.example/*",))),
        ({"serving.image": "serve@sha256:1"}, Allowed()),  # the chart's own
        ({}, Allowed(service_accounts=())),
        ({"serving.serviceAccountName": "models-a"}, Allowed(service_accounts=("models-?",))),
        ({}, Allowed(secrets=("s*",))),
        (
            {"provenance": {"signing": {"secretRef": {"name": "release-1"}}}},
            Allowed(secrets=("s3", "release-?")),
        ),
        ({"baseModel": {"uri": "pvc://models-a/model"}}, Allowed(claims=("models-?",))),
        ({}, Allowed(claims=())),
        ({"serving.runtime": "VLLM"}, Allowed(runtimes=("VLLM",))),
        ({}, Allowed(endpoints=("127.0.0.1", "huggingface.co"))),
        (THROUGH_MIRROR, Allowed(endpoints=("MIRROR.internal", "fd00:*"))),
    ],
)
def test_what_is_allowed_runs(changes: dict[str, Any], allowed: Allowed) -> None:
    made = planned(World(changes=changes), allowed)
    assert made.status.phase is not Phase.STALLED
    assert "CreateJob" in [type(a).__name__ for a in made.actions]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"baseModel": {"uri": "hf://org/base"}}, "baseModel.uri has no connection and so"),
        ({"artifact": {"uri": "s3://b/p"}}, "artifact.uri has no connection and so"),
        ({"connections": [{"name": "models", "s3": {}}]},
         "connections[models].s3.endpoint is unset and so names s3.amazonaws.com"),
        ({"connections": [*MIRROR[1:], {"name": "hub", "huggingFace": {}}]},
         "connections[hub].huggingFace.endpoint is unset and so names huggingface.co"),
    ],
)  # fmt: skip
def test_a_place_without_an_endpoint_is_a_public_one(changes: dict[str, Any], told: str) -> None:
    closed = Allowed(endpoints=("mirror.internal", "fd00::7"))
    made = planned(World(changes=THROUGH_MIRROR | changes), closed)
    status, reason, message = conditions(made)["Ready"]
    assert (status, reason) == ("False", "NotAllowed")
    assert f"spec.{told}" in message
    assert "(mirror.internal, fd00::7)" in message
    assert "chart's allowed.endpoints" in message


def test_what_serves_stays_when_the_administrator_closes_its_image_later() -> None:
    world = serving_world(**{"serving.image": "engine:2"})
    made = planned(world, Allowed())
    assert conditions(made)["Ready"][:2] == ("False", "NotAllowed")
    assert conditions(made)["Available"][0] == "True"
    assert [type(a).__name__ for a in made.actions] == ["EmitEvent"]


def test_an_image_that_only_the_bucket_names_runs_nowhere_until_the_spec_names_one() -> None:
    world = World(bucket_image="evil:1")
    world.settle()
    assert world.condition("Ready") == ("False", "NotAllowed")
    assert (world.created, world.deployments) == (["resolve"], {})
    assert world.status.get("image", "") == "", "what was refused is not remembered as known"
    world.edit(**{"serving.image": "engine:1"})
    world.settle()
    assert world.condition("Ready")[0] == "True"


def world_that_recalls(first: dict[str, Any], second: dict[str, Any]) -> World:
    """An object that served first and then second, is pinned to the first, and has just read it."""
    world = serving_world(**first)
    release = world.status["serving"]["release"]
    world.edit(**second)
    world.settle()
    world.edit(**{"serving.pin": release})
    world.run_until("recall")
    world.end_stage("recall")
    return world


def test_the_image_of_a_pinned_release_is_no_way_around() -> None:
    world = world_that_recalls({"serving.image": "engine:2"}, {"serving.image": "engine:3"})
    made = planned(world, Allowed(images=("engine:3",)))
    assert conditions(made)["Ready"][:2] == ("False", "NotAllowed")
    assert "engine:2" in conditions(made)["Ready"][2]
    assert "ApplyDeployment" not in [type(a).__name__ for a in made.actions]


def test_the_runtime_of_a_pinned_release_is_no_way_around_either() -> None:
    world = world_that_recalls({"serving.runtime": "Transformers"}, {"serving.runtime": "VLLM"})
    made = planned(world, Allowed(images=("*",), runtimes=("VLLM",)))
    assert conditions(made)["Ready"][:2] == ("False", "NotAllowed")
    assert "runtime Transformers" in conditions(made)["Ready"][2]
    assert "ApplyDeployment" not in [type(a).__name__ for a in made.actions]


def test_what_runs_is_left_alone_when_the_chart_brings_another_default_image() -> None:
    world = serving_world()
    newer = {runtime: "serve@sha256:2" for runtime in SETTINGS.serving_images}
    made = plan(world.observe(), replace(SETTINGS, serving_images=newer), world.now)
    assert conditions(made)["Ready"][:2] == ("True", "Serving")
