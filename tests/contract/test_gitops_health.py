"""What Argo CD, Flux and kstatus make of an object, at each phase that the planner writes.

Each is asked with its own engine: Argo CD's Lua, Flux's CEL, and kstatus' own library.
"""

import re
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import yaml

from gitops import DOCS, HEALTH, by_kstatus, documented, in_argo_cd, in_flux
from planning_world import World, serving_world
from recorded_objects import BAD, GOING, GOOD, NEXT, PHASES, document, files

Json = dict[str, Any]
IN_FLUX = {GOOD: "Current", BAD: "Failed", GOING: "InProgress"}


@cache
def recorded(name: str) -> Json:
    return document(PHASES[name].story())


@pytest.mark.parametrize("name", PHASES)
def test_argo_cd_shows_the_truth_at(name: str) -> None:
    assert in_argo_cd(recorded(name))["status"] == PHASES[name].verdict


@pytest.mark.parametrize("name", PHASES)
def test_flux_shows_the_truth_at(name: str) -> None:
    assert in_flux(recorded(name)) == IN_FLUX[PHASES[name].verdict]


def test_kstatus_shows_the_truth_too() -> None:
    verdicts = dict(zip(PHASES, by_kstatus(*map(recorded, PHASES)), strict=True))
    assert verdicts == {name: IN_FLUX[PHASES[name].verdict] for name in PHASES}


def test_an_object_from_before_the_default_is_current_to_kstatus_only() -> None:
    # Stored by an older version and not looked at: why the page for users gives expressions.
    old = {key: value for key, value in recorded("new").items() if key != "status"}
    assert by_kstatus(old) == ["Current"]
    assert in_flux(old) == "Unknown"
    assert in_argo_cd(old)["status"] == GOING


def test_argo_cds_table_of_cases_is_current_and_holds() -> None:
    folder = HEALTH.parent
    assert {n: (folder / n).read_text() for n in files()} == files(), "run `make generate`"
    assert {p.name for p in (folder / "testdata").iterdir()} == {f"{name}.yaml" for name in PHASES}
    for case in yaml.safe_load((folder / "health_test.yaml").read_text())["tests"]:
        found = yaml.safe_load((folder / case["inputPath"]).read_text())
        assert in_argo_cd(found) == case["healthStatus"], case["inputPath"]


@pytest.mark.parametrize("good", [True, False])
def test_through_a_whole_change_nothing_is_healthy_before_the_new_release_serves(
    good: bool,
) -> None:
    world = serving_world()
    first = world.service
    world.edit(**NEXT)
    if not good:
        world.task_quality = {64: 1.5}
    seen = [GOING]
    while True:
        writes = world.writes
        assert_all_agree(world)
        seen.append(in_argo_cd(document(world))["status"])
        assert seen[-1] != GOOD or world.service != first
        world.reconcile()
        if world.writes == writes and not world.step_forward():
            break
    told = [verdict for before, verdict in pairwise(seen) if before != verdict]
    assert told == [GOOD if good else BAD], "and no tool flickers on the way"


def assert_all_agree(world: World) -> None:
    found = document(world)
    assert IN_FLUX[in_argo_cd(found)["status"]] == in_flux(found)


def test_the_application_in_the_docs_applies_on_the_servers_side() -> None:
    spec = documented("Application")["spec"]
    assert "ServerSideApply=true" in spec["syncPolicy"]["syncOptions"]


def test_the_docs_name_the_check_where_it_lies() -> None:
    [path] = re.findall(r"^lua=(.*)$", DOCS.read_text(), re.MULTILINE)
    assert (DOCS.parents[1] / path) == HEALTH
