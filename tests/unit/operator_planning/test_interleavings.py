"""Whatever happens, in whatever order: the same end, no work twice, nothing unverified selected.

The world itself asserts on every write that only published, verified releases are selected, that
what serves is never deleted or given up, and that no stranger's Job is touched.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import Reason, Stage, StageFailure
from lora_operator.observed import Observed
from lora_operator.planning import plan
from planning_world import SETTINGS, WITH_CANDIDATES, World, lose_a_pod, serving_world

PATIENT = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


class Turmoil:
    """A world, and what may happen to it; `choice` picks among its Jobs and prefixes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.views: list[Observed] = [world.observe()]

    def look(self, choice: int) -> None:
        self.views.append(self.world.observe())
        self.world.reconcile()

    def crash_after_some_actions(self, choice: int) -> None:
        self.world.reconcile_and_crash(choice % 5)

    def lose_the_status_after_some_actions(self, choice: int) -> None:
        self.world.reconcile_without_status(choice % 5)

    def act_on_a_stale_view(self, choice: int) -> None:
        """Its status write fails on the resource version."""
        stale = self.views[-1 - choice % min(len(self.views), 3)]
        if stale.parent.uid == self.world.uid:
            made = plan(stale, SETTINGS, self.world.now)
            self.world.carry_out(made, len(made.actions))

    def a_job_ends(self, choice: int) -> None:
        if jobs := self.world.unfinished_jobs():
            self.world.end(jobs[choice % len(jobs)])

    def a_job_ends_and_its_pod_is_collected(self, choice: int) -> None:
        if jobs := self.world.unfinished_jobs():
            self.world.lose_result(jobs[choice % len(jobs)])

    def a_job_fails_for_the_worlds_sake(self, choice: int) -> None:
        if jobs := self.world.unfinished_jobs():
            why = StageFailure(failure=Reason.STORE_UNREACHABLE, message="wait")
            self.world.end(jobs[choice % len(jobs)], why, exit_code=3)

    def a_job_vanishes(self, choice: int) -> None:
        if self.world.jobs:
            del self.world.jobs[list(self.world.jobs)[choice % len(self.world.jobs)]]

    def a_job_cannot_start(self, choice: int) -> None:
        if jobs := self.world.unfinished_jobs():
            self.world.start(
                jobs[choice % len(jobs)], container_started_at=None, unschedulable="no node"
            )

    def status_is_wiped(self, choice: int) -> None:
        self.world.status = {}

    def pods_become_ready(self, choice: int) -> None:
        if names := self.world.unready_deployments():
            self.world.make_ready(names[choice % len(names)])

    def a_pod_is_lost(self, choice: int) -> None:
        names = [n for n, d in self.world.deployments.items() if d.ready_replicas]
        if names:
            lose_a_pod(self.world, names[choice % len(names)])

    def a_deployment_is_deleted(self, choice: int) -> None:
        if self.world.deployments:
            del self.world.deployments[next(iter(self.world.deployments))]

    def the_service_is_deleted(self, choice: int) -> None:
        self.world.service = None

    def time_passes(self, choice: int) -> None:
        self.world.now += choice

    def the_user_asks_for_a_retry(self, choice: int) -> None:
        self.world.ask_for_a_retry(str(choice))

    def the_object_is_recreated(self, choice: int) -> None:
        self.world.recreate()


EVENTS: list[Callable[[Turmoil, int], None]] = [
    e for name, e in vars(Turmoil).items() if not name.startswith("_")
]
STEPS = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 700)), max_size=40)


@pytest.fixture(scope="module")
def reference() -> World:
    return serving_world()


@PATIENT
@given(steps=STEPS)
def test_a_good_model_always_ends_up_serving_and_no_work_is_done_twice(
    reference: World, steps: list[tuple[Callable[[Turmoil, int], None], int]]
) -> None:
    turmoil = Turmoil(World())
    for event, choice in steps:
        event(turmoil, choice)
    world = turmoil.world
    world.settle()
    if world.condition("Stalled")[1] == ConditionReason.STAGE_CRASHED:
        world.ask_for_a_retry("after the storm")
        world.settle()
    assert world.condition("Ready")[0] == "True", world.told()
    assert world.worked == reference.worked
    assert world.status["summary"] == reference.status["summary"]
    assert {r["id"] for r in world.status["releases"]} == {world.status["summary"]["release"]}
    writes = world.writes
    world.rest()
    assert world.writes == writes


@PATIENT
@given(steps=STEPS)
def test_a_bad_model_never_takes_the_place_of_what_serves(
    steps: list[tuple[Callable[[Turmoil, int], None], int]],
) -> None:
    world = serving_world()
    (first,) = world.selected
    good, turmoil = world.deployments, Turmoil(world)
    world.task_quality = {64: 2.0}
    world.edit(**{"quantization.gptq": {"groupSize": 64}})
    for event, choice in steps:
        if event not in (Turmoil.the_object_is_recreated, Turmoil.a_deployment_is_deleted):
            event(turmoil, choice)
    world.settle()
    assert set(world.selected) == {first}
    assert world.deployments.keys() == good.keys()
    assert world.condition("Ready")[0] == "False", world.told()


@PATIENT
@given(steps=STEPS, strategy=st.sampled_from([{}, {"type": "Recreate"}]))
def test_a_good_successor_serves_or_was_given_up_for_lost_pods_and_one_of_both_always_does(
    steps: list[tuple[Callable[[Turmoil, int], None], int]], strategy: dict[str, str]
) -> None:
    world = serving_world(**{"serving.strategy": strategy})
    (first,) = world.deployments
    turmoil = Turmoil(world)
    world.edit(**{"quantization.gptq": {"groupSize": 64}})
    for event, choice in steps:
        if event not in (Turmoil.the_object_is_recreated, Turmoil.a_deployment_is_deleted):
            event(turmoil, choice)
    world.settle()
    assert world.condition("Available") == ("True", "Serving"), world.told()
    if world.condition("Stalled")[1] in (
        ConditionReason.STAGE_CRASHED, ConditionReason.LOST_READINESS,
    ):  # fmt: skip
        assert first in world.deployments
        world.ask_for_a_retry("after the storm")
        world.settle()
    assert world.condition("Ready")[0] == "True", world.told()
    assert len(world.worked) == len(set(world.worked)) + 3, "the first run's, and the second's"
    assert len(world.deployments) == 1


@PATIENT
@given(steps=STEPS)
def test_what_has_a_deployment_is_never_collected(
    steps: list[tuple[Callable[[Turmoil, int], None], int]],
) -> None:
    """The world asserts it of each collection."""
    world = serving_world(**{"artifact.keepReleases": 1})
    turmoil = Turmoil(world)
    for number, (event, choice) in enumerate(steps):
        if number % 8 == 0:
            world.edit(**{"quantization.gptq": {"groupSize": (32, 64, 128)[choice % 3]}})
        event(turmoil, choice)
    world.settle()
    if world.condition("Ready")[0] != "True":
        world.ask_for_a_retry("after the storm")
        world.settle()
    assert world.condition("Ready")[0] == "True", world.told()
    assert len(world.status["releases"]) == 1


@PATIENT
@given(steps=STEPS)
def test_the_candidate_search_ends_with_the_same_recipe(
    steps: list[tuple[Callable[[Turmoil, int], None], int]],
) -> None:
    turmoil = Turmoil(World(changes=dict(WITH_CANDIDATES), task_quality={128: 1.3, 64: 1.2}))
    for event, choice in steps:
        event(turmoil, choice)
    world = turmoil.world
    world.settle()
    if world.condition("Stalled")[1] == ConditionReason.STAGE_CRASHED:
        world.ask_for_a_retry("after the storm")
        world.settle()
    assert world.status["run"]["candidate"] == "g32"
    assert sorted(world.worked) == sorted(set(world.worked)), "no GPU second twice"
    assert [w for w in world.worked if w.startswith("benchmark")] == ["benchmark:g32"]


@PATIENT
@given(steps=STEPS)
def test_at_most_one_job_of_a_stage_is_under_way(
    steps: list[tuple[Callable[[Turmoil, int], None], int]],
) -> None:
    turmoil = Turmoil(World())
    for event, choice in steps:
        event(turmoil, choice)
        stages = [turmoil.world.jobs[n].stage for n in turmoil.world.unfinished_jobs()]
        working = [s for s in stages if s in (Stage.MERGE, Stage.QUANTIZE, Stage.EVALUATE)]
        assert len(working) <= 1


@PATIENT
@given(steps=STEPS, at=st.integers(0, 10_000))
def test_the_same_look_makes_the_same_plan(
    steps: list[tuple[Callable[[Turmoil, int], None], int]], at: int
) -> None:
    turmoil = Turmoil(World())
    for event, choice in steps:
        event(turmoil, choice)
    seen, now = turmoil.world.observe(), turmoil.world.now + at
    assert plan(seen, SETTINGS, now) == plan(replace(seen), SETTINGS, now)
