"""What an administrator closed is not reached through us, and is told before anything starts."""

from dataclasses import replace
from typing import Any

import pytest

from lora_api.status import Phase
from lora_operator.allowed import Allowed
from lora_operator.plan import Plan
from lora_operator.planning import plan
from planning_world import SETTINGS, World, serving_world

HUB: list[dict[str, Any]] = [{"name": "hub", "huggingFace": {"secretRef": {"name": "token"}}}]


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


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"serving.image": "registry.example/vllm:1"}, Allowed(images=("registry.example/*",))),
        ({"serving.image": "serve@sha256:1"}, Allowed()),  # the chart's own
        ({}, Allowed(service_accounts=())),
        ({"serving.serviceAccountName": "models-a"}, Allowed(service_accounts=("models-?",))),
        ({}, Allowed(secrets=("s*",))),
    ],
)
def test_what_is_allowed_runs(changes: dict[str, Any], allowed: Allowed) -> None:
    made = planned(World(changes=changes), allowed)
    assert made.status.phase is not Phase.STALLED
    assert "CreateJob" in [type(a).__name__ for a in made.actions]


def test_what_serves_stays_when_the_administrator_closes_its_image_later() -> None:
    world = serving_world(**{"serving.image": "engine:2"})
    made = planned(world, Allowed())
    assert conditions(made)["Ready"][:2] == ("False", "NotAllowed")
    assert conditions(made)["Available"][0] == "True"
    assert [type(a).__name__ for a in made.actions] == ["EmitEvent"]
