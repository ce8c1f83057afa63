"""One of several replicas leads; who cannot renew ends before another begins."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_cluster import FakeCluster
from lora_operator.cluster import Unavailable
from lora_operator.lease import LEASES, Leadership, LeaseLost, Sighting, Times, Watchdog
from lora_operator.settings import LeaseName
from virtual_time import loop_time, run_virtually

AT = LeaseName("operators", "lora-operator")
TIMES = Times(15.0)


class Died(BaseException):
    """The process would have ended."""


def die() -> None:
    raise Died


class Replica:
    """One process as the Lease sees it, on virtual time."""

    def __init__(self, cluster: FakeCluster, identity: str) -> None:
        self.watchdog = Watchdog(TIMES.renew_deadline, die, loop_time)
        self.leadership = Leadership(
            cluster, AT, identity, TIMES, self.watchdog, loop_time, loop_time
        )
        self.leads_since: float | None = None

    async def lead(self) -> None:
        """Take the Lease and keep it."""
        await self.leadership.take()
        self.leads_since = loop_time()
        await self.leadership.keep()


def on_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    run_virtually(work)


def lease_of(cluster: FakeCluster) -> dict[str, Any]:
    spec: dict[str, Any] = cluster.objects["leases", *AT]["spec"]
    return spec


def test_the_first_leads_at_once_and_the_second_stands_by() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first, second = Replica(cluster, "first"), Replica(cluster, "second")
        tasks = [asyncio.create_task(r.lead()) for r in (first, second)]
        await asyncio.sleep(300)
        assert first.leads_since == 0
        assert second.leads_since is None
        assert lease_of(cluster)["holderIdentity"] == "first"
        assert not any(t.done() for t in tasks)
        first.watchdog.fence()

    on_virtual_time(story())


@pytest.mark.fault("F15")
def test_a_leader_that_fell_silent_is_replaced_within_20_s_and_ends_before_its_next_write() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first, second = Replica(cluster, "first"), Replica(cluster, "second")
        leading = asyncio.create_task(first.lead())
        await asyncio.sleep(60)
        standing_by = asyncio.create_task(second.lead())
        await asyncio.sleep(60)
        leading.cancel()  # stopped, as by SIGSTOP: it runs no more
        silent_since = loop_time()
        await asyncio.sleep(60)
        assert second.leads_since is not None
        assert second.leads_since - silent_since <= 20
        with pytest.raises(Died):
            first.watchdog.fence()
        standing_by.cancel()

    on_virtual_time(story())


@pytest.mark.fault("F16")
def test_a_leader_whose_renewals_fail_ends_before_another_may_take_over() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first = Replica(cluster, "first")
        leading = asyncio.create_task(first.lead())
        await asyncio.sleep(30)
        cluster.refusals["patch", "leases"] = Unavailable("no answer in time")
        await asyncio.sleep(TIMES.renew_deadline + TIMES.retry * 1.2)
        with pytest.raises(Died):
            first.watchdog.fence()
        assert not leading.done(), "it went on trying"

    on_virtual_time(story())


@pytest.mark.fault("F16")
def test_a_renewal_that_hangs_is_given_up_and_the_watchdog_ends_the_process() -> None:
    async def story() -> None:
        class Hanging(FakeCluster):
            hangs = False

            async def patch(self, *arguments: Any) -> dict[str, Any]:
                if self.hangs:
                    await asyncio.sleep(3600)
                return await super().patch(*arguments)

        cluster = Hanging()
        first = Replica(cluster, "first")
        leading = asyncio.create_task(first.lead())
        await asyncio.sleep(30)
        cluster.hangs = True
        await asyncio.sleep(TIMES.duration)
        with pytest.raises(Died):
            first.watchdog.fence()
        leading.cancel()

    on_virtual_time(story())


@pytest.mark.fault("F16")
def test_a_lease_that_somebody_deleted_is_made_again_by_who_leads() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first, second = Replica(cluster, "first"), Replica(cluster, "second")
        tasks = [asyncio.create_task(r.lead()) for r in (first, second)]
        await asyncio.sleep(30)
        del cluster.objects["leases", *AT]
        await asyncio.sleep(30)
        holder = lease_of(cluster)["holderIdentity"]
        ended = [t.exception() for t in tasks if t.done()]
        assert holder == "first" or [type(e) for e in ended] == [LeaseLost]
        for task in tasks:
            task.cancel()

    on_virtual_time(story())


def test_who_finds_another_leading_ends() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first = Replica(cluster, "first")
        leading = asyncio.create_task(first.lead())
        await asyncio.sleep(30)
        live = cluster.objects["leases", *AT]
        cluster.add(LEASES, {**live, "spec": live["spec"] | {"holderIdentity": "second"}})
        with pytest.raises(LeaseLost, match="second leads now"):
            await leading

    on_virtual_time(story())


def test_somebody_who_annotates_the_lease_takes_it_from_nobody() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first = Replica(cluster, "first")
        leading = asyncio.create_task(first.lead())
        await asyncio.sleep(30)
        live = cluster.objects["leases", *AT]
        cluster.add(LEASES, {**live, "metadata": live["metadata"] | {"annotations": {"a": "b"}}})
        await asyncio.sleep(30)
        first.watchdog.fence()
        assert not leading.done()

    on_virtual_time(story())


def test_a_lease_that_was_given_back_is_taken_at_the_next_look() -> None:
    async def story() -> None:
        cluster = FakeCluster()
        first, second = Replica(cluster, "first"), Replica(cluster, "second")
        leading = asyncio.create_task(first.lead())
        await asyncio.sleep(10)
        standing_by = asyncio.create_task(second.lead())
        await asyncio.sleep(10)
        leading.cancel()
        await first.leadership.give_back()
        given_back_at = loop_time()
        await asyncio.sleep(10)
        assert second.leads_since is not None
        assert second.leads_since - given_back_at <= TIMES.retry * 1.2
        assert lease_of(cluster)["leaseTransitions"] == 1
        first.watchdog.fence()
        standing_by.cancel()

    on_virtual_time(story())


@given(st.lists(st.sampled_from(["renewed", "silent"]), min_size=1, max_size=60))
def test_a_lease_is_free_only_when_it_was_seen_unchanged_for_its_whole_duration(
    seconds: list[str],
) -> None:
    said: dict[str, Any] = {"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": "0"}
    seen, unchanged_for = Sighting(said, 0.0), 0
    for now, event in enumerate(seconds, start=1):
        if event == "renewed":
            said = {**said, "renewTime": str(now)}
        unchanged_for = 0 if event == "renewed" else unchanged_for + 1
        seen = seen.then(said, float(now))
        assert seen.is_free_for("y", float(now)) == (unchanged_for >= 15)
        assert seen.is_free_for("x", float(now))


def test_the_times_are_those_of_client_go() -> None:
    assert (TIMES.duration, TIMES.renew_deadline, TIMES.retry) == (15, 10, 2)


@pytest.mark.parametrize("text", ["lora", "/lora", "operators/"])
def test_a_lease_that_is_not_named_by_namespace_and_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="namespace/name"):
        LeaseName.parse(text)


def test_without_a_lease_there_is_no_election() -> None:
    assert LeaseName.parse("") is None
    Watchdog(10.0, die).fence()
