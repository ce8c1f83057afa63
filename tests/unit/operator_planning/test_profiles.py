"""An object with a profile runs as one that says it all; a change of the profile is an edit."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lora_api.jobcontract import Reason, StageFailure
from lora_api.profile import Profile
from lora_api.status import Phase
from lora_operator.allowed import Allowed
from lora_operator.plan import Plan
from lora_operator.planning import plan
from planning_world import SETTINGS, World

STORE: dict[str, Any] = {
    "connections": [
        {
            "name": "models",
            "s3": {"endpoint": "http://127.0.0.1:7070", "secretRef": {"name": "team"}},
        }
    ],
    "artifact": {"uri": "s3://models/store", "connection": "models"},
}
GATE = "taskQuality"


@dataclass
class TeamWorld(World):
    """A world whose operator has profiles, with an object that names `gpu`."""

    profiles: dict[str, Any] = field(default_factory=lambda: {"gpu": STORE})
    allowed: Allowed = SETTINGS.allowed
    leaves_out: tuple[str, ...] = ("artifact", "connections")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.edit(**({"profile": "gpu"} | self.changes))

    def edit(self, **changes: Any) -> None:
        """Apply a changed spec, without what the profile is to give."""
        super().edit(**changes)
        for part in set(self.leaves_out) - set(self.changes):
            self.spec.pop(part, None)

    def plan(self) -> Plan:
        """The plan of this moment."""
        profiles = {name: Profile.model_validate(p) for name, p in self.profiles.items()}
        settings = replace(SETTINGS, profiles=profiles, allowed=self.allowed)
        return plan(self.observe(), settings, self.now)


def serving(**changes: Any) -> TeamWorld:
    world = TeamWorld(changes=changes)
    world.settle()
    assert world.condition("Ready")[0] == "True"
    return world


def test_it_serves_what_one_that_says_it_all_serves() -> None:
    whole = World()
    whole.settle()
    world = serving()
    assert world.status["serving"]["release"] == whole.status["serving"]["release"]
    assert world.status["run"]["id"] == whole.status["run"]["id"]
    assert world.status["profile"]["name"] == "gpu"
    assert "profile" not in whole.status


def test_taking_up_a_profile_that_says_the_same_measures_nothing() -> None:
    world = TeamWorld(changes={"profile": ""}, leaves_out=())
    world.settle()
    assert world.condition("Ready")[0] == "True"
    world.worked.clear()
    world.leaves_out = ("artifact", "connections")
    world.edit(profile="gpu")
    world.settle()
    assert world.worked == []
    assert world.condition("Ready")[0] == "True"


def test_requests_of_the_stages_hold_what_the_profile_gave() -> None:
    world = TeamWorld()
    world.run_until("resolve")
    (request,) = world.requests.values()
    assert request.store.uri == "s3://models/store"
    assert [c.name for c in request.connections] == ["models"]


def test_a_stricter_floor_is_judged_at_once_and_nothing_is_measured() -> None:
    world = serving()
    world.worked.clear()
    world.profiles["gpu"] = STORE | {"gates": {GATE: {"maxIncrease": "0.5%"}}}
    world.settle()
    assert world.worked == []
    assert world.condition("Ready") == ("False", "GatesFailed")
    assert world.condition("Available")[0] == "True"


def test_an_object_cannot_go_below_the_floor_but_may_accept_a_failure_on_record() -> None:
    floor = {"gates": {GATE: {"maxIncrease": "0.5%"}}}
    loose = {f"gates.{GATE}": {"maxIncrease": "90%", "mode": "Disabled"}}
    world = TeamWorld(changes=loose, profiles={"gpu": STORE | floor})
    world.settle()
    assert world.condition("Ready") == ("False", "GatesFailed")
    digest = world.status["artifact"]["digest"]
    world.edit(overrides=[{"digest": digest, "gate": GATE, "reason": "ticket 4711"}])
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_another_image_in_the_profile_is_measured_before_it_serves() -> None:
    world = serving()
    world.worked.clear()
    world.allowed = Allowed(images=("engine:*",))
    world.profiles["gpu"] = STORE | {"serving": {"images": {"Transformers": "engine:2"}}}
    world.settle()
    assert world.worked == ["benchmark:default"]
    assert world.status["serving"]["image"] == "engine:2"


def test_what_had_failed_is_tried_at_once_with_another_content() -> None:
    world = TeamWorld()
    world.run_until("merge")
    world.end_stage("merge", StageFailure(failure=Reason.INVALID_INPUT, message="correct it"), 2)
    world.settle()
    assert world.condition("Stalled") == ("True", "InvalidInput")
    before = world.status["profile"]["digest"]
    world.profiles["gpu"] = STORE | {"jobs": {"defaults": {"labels": {"team": "sql"}}}}
    world.settle()
    assert world.status["profile"]["digest"] != before
    assert world.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    ("profiles", "told"), [({"cpu": {}, "a": {}}, "there are a, cpu"), ({}, "there are none")]
)
def test_an_unknown_profile_starts_nothing_and_names_those_that_there_are(
    profiles: dict[str, Any], told: str
) -> None:
    world = TeamWorld(profiles=profiles)
    made = world.plan()
    world.settle()
    assert world.condition("Stalled") == ("True", "ProfileNotFound")
    (ready,) = (c for c in made.status.conditions if c.type == "Ready")
    assert "spec.profile names gpu" in ready.message
    assert told in ready.message
    assert world.created == []
    world.profiles["gpu"] = STORE
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_a_profile_that_went_leaves_what_serves_alone() -> None:
    world = serving()
    deployments, service = dict(world.deployments), world.service
    world.profiles.clear()
    world.settle()
    assert world.condition("Ready") == ("False", "ProfileNotFound")
    assert world.condition("Available")[0] == "True"
    assert (world.deployments, world.service) == (deployments, service)


@pytest.mark.parametrize(
    ("name", "told"), [("", "no profile is named"), ("gpu", "profile gpu gives none")]
)
def test_a_place_that_nobody_gives_is_asked_for(name: str, told: str) -> None:
    world = TeamWorld(changes={"profile": name}, profiles={"gpu": {}})
    made = world.plan()
    (stalled,) = (c for c in made.status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "ArtifactMissing")
    assert told in stalled.message
    assert "set spec.artifact.uri" in stalled.message
    assert made.status.phase is Phase.STALLED


@pytest.mark.parametrize(
    ("gives", "allowed", "field"),
    [
        ({"serving": {"images": {"Transformers": "evil:1"}}}, Allowed(), "serving.image"),
        ({"serving": {"serviceAccountName": "admin"}}, Allowed(service_accounts=("m-*",)),
         "serving.serviceAccountName"),
        ({"jobs": {"defaults": {"serviceAccountName": "admin"}}}, Allowed(service_accounts=()),
         "jobs.defaults.serviceAccountName"),
        ({}, Allowed(secrets=("s3-*",)), "connections[models].s3.secretRef.name"),
        ({}, Allowed(endpoints=("*.internal",)), "connections[models].s3.endpoint"),
    ],
)  # fmt: skip
def test_what_a_profile_gives_must_be_allowed_too(
    gives: dict[str, Any], allowed: Allowed, field: str
) -> None:
    world = TeamWorld(profiles={"gpu": STORE | gives}, allowed=allowed)
    made = world.plan()
    (ready,) = (c for c in made.status.conditions if c.type == "Ready")
    assert ready.reason == "NotAllowed"
    assert f"spec.{field} with profile gpu names" in ready.message
    assert [type(a).__name__ for a in made.actions] == ["EmitEvent"]
