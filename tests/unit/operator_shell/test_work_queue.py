"""One worker a key, back-off with jitter, and nobody suffers from another's failure."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_clock import FakeClock, settle
from lora_operator.workqueue import PATIENCE_SECONDS, Schedule, TryLater, WorkQueue

Work = Callable[[str], Awaitable[float | None]]


@asynccontextmanager
async def running(work: Work, clock: FakeClock, workers: int = 3) -> AsyncIterator[WorkQueue[str]]:
    queue = WorkQueue(work, clock, backoff_seconds=(1.0, 600.0), jitter=lambda: 1.0)
    task = asyncio.create_task(queue.run(workers))
    yield queue
    queue.stop()
    await asyncio.wait_for(task, 5)


async def test_a_key_that_is_added_many_times_is_looked_at_once() -> None:
    clock, looks = FakeClock(), []

    async def work(key: str) -> None:
        looks.append(key)

    async with running(work, clock) as queue:
        for _ in range(5):
            queue.add("a")
        queue.add("b")
        await settle()
    assert sorted(looks) == ["a", "b"]


async def test_a_key_is_never_looked_at_twice_at_a_time_but_once_more_afterwards() -> None:
    clock, gate, looks = FakeClock(), asyncio.Event(), []

    async def work(key: str) -> None:
        looks.append("begin")
        await gate.wait()
        looks.append("end")

    async with running(work, clock) as queue:
        queue.add("a")
        await settle()
        queue.add("a")
        queue.add("a")
        await settle()
        assert looks == ["begin"]
        gate.set()
        await settle()
    assert looks == ["begin", "end", "begin", "end"]


async def test_a_slow_key_holds_up_no_other() -> None:
    clock, gate, looks = FakeClock(), asyncio.Event(), []

    async def work(key: str) -> None:
        if key == "slow":
            await gate.wait()
        looks.append(key)

    async with running(work, clock) as queue:
        queue.add("slow")
        queue.add("quick")
        await settle()
        assert looks == ["quick"]
        gate.set()


async def test_a_look_says_when_the_next_one_is_due_and_an_event_comes_first() -> None:
    clock, looks = FakeClock(), []

    async def work(key: str) -> float | None:
        looks.append(clock.now)
        return 5.0

    async with running(work, clock) as queue:
        queue.add("a")
        await clock.advance(12)
        queue.add("a")
        await clock.advance(4)
    assert looks == [0, 5, 10, 12]


@pytest.mark.fault("F47")
async def test_a_poisoned_key_backs_off_to_ten_minutes_and_the_others_notice_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, poisoned, healthy = FakeClock(), [], []

    async def work(key: str) -> float | None:
        if key == "poisoned":
            poisoned.append(clock.now)
            raise RuntimeError("cannot be looked at")
        healthy.append(clock.now)
        return 60.0

    with caplog.at_level(logging.CRITICAL):
        async with running(work, clock, workers=1) as queue:
            queue.add("poisoned")
            queue.add("healthy")
            await clock.advance(3600)
    gaps = [b - a for a, b in itertools.pairwise(poisoned)]
    assert gaps[:5] == [1, 2, 4, 8, 16]
    assert max(gaps) == 600
    assert healthy == [60.0 * i for i in range(61)]


async def test_a_success_forgets_earlier_failures() -> None:
    clock, looks = FakeClock(), []

    async def work(key: str) -> float | None:
        looks.append(clock.now)
        if len(looks) in (1, 2, 4):
            raise TryLater("not now")
        return 100.0 if len(looks) == 3 else None

    async with running(work, clock) as queue:
        queue.add("a")
        await clock.advance(1000)
    assert looks == [0, 1, 3, 103, 104]


async def test_a_known_reason_is_told_in_one_line_and_a_bug_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()

    async def work(key: str) -> float | None:
        raise TryLater("no right to list jobs") if key == "known" else ValueError("a bug")

    async with running(work, clock) as queue:
        queue.add("known")
        queue.add("bug")
        await settle()
    traced = {r.args[0]: bool(r.exc_info) for r in caplog.records if isinstance(r.args, tuple)}
    assert traced == {"known": False, "bug": True}


async def test_jitter_spreads_a_crowd_that_failed_together() -> None:
    clock, looks = FakeClock(), []

    async def work(key: str) -> float | None:
        looks.append((key, clock.now))
        raise TryLater("the API server is away") if clock.now == 0 else TryLater("still")

    numbers = itertools.cycle([0.0, 0.25, 0.5, 0.75])
    queue = WorkQueue(work, clock, (8.0, 8.0), jitter=lambda: next(numbers))
    task = asyncio.create_task(queue.run(2))
    for key in "abcd":
        queue.add(key)
    await clock.advance(7.9)
    queue.stop()
    await asyncio.wait_for(task, 5)
    second = sorted(now for _, now in looks if now > 0)
    assert second == [4, 5, 6, 7]


async def test_stopping_lets_the_look_under_way_end_and_starts_no_other() -> None:
    clock, gate, looks = FakeClock(), asyncio.Event(), []

    async def work(key: str) -> None:
        await gate.wait()
        looks.append(key)

    queue = WorkQueue(work, clock)
    task = asyncio.create_task(queue.run(1))
    queue.add("a")
    queue.add("b")
    await settle()
    queue.stop()
    gate.set()
    await asyncio.wait_for(task, 5)
    assert looks == ["a"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("add patiently"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("start"), st.just(""), st.just(0)),
        st.tuples(st.just("finish"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 5)),
    ),
    max_size=60,
)


@given(operations=OPERATIONS)
def test_a_schedule_loses_no_key_and_starts_none_that_runs_or_is_not_due(
    operations: list[tuple[str, str, int]],
) -> None:
    schedule: Schedule[str] = Schedule()
    due: dict[str, float] = {}
    since: dict[str, float] = {}
    active: set[str] = set()
    now = 0.0
    for operation, key, number in operations:
        if operation.startswith("add"):
            can_wait = operation == "add patiently"
            schedule.add(key, now + number, can_wait)
            due[key] = min(due.get(key, now + number), now + number)
            waits_from = now + number + (PATIENCE_SECONDS if can_wait else 0.0)
            since[key] = min(since.get(key, waits_from), waits_from)
        elif operation == "wait":
            now += number
        elif operation == "finish":
            active.discard(key)
            schedule.finish(key)
        else:
            startable = {k: d for k, d in due.items() if d <= now and k not in active}
            started = schedule.start(now)
            if started is None:
                assert not startable
                continue
            name, was_due = started
            assert was_due == due.pop(name)
            assert since[name] == min(since[k] for k in startable)
            del since[name]
            active.add(name)
    waiting = [d for k, d in due.items() if k not in active]
    assert schedule.next_due() == min(waiting, default=None)


async def test_what_is_known_to_have_changed_goes_before_a_crowd_that_can_wait() -> None:
    clock, looks = FakeClock(), []

    async def work(key: str) -> None:
        looks.append(key)

    queue = WorkQueue(work, clock)
    for number in range(50):
        queue.add(f"settled-{number}", can_wait=True)
    await clock.advance(1)
    queue.add("new")
    task = asyncio.create_task(queue.run(workers=1))
    await settle()
    queue.stop()
    await asyncio.wait_for(task, 5)
    assert looks[0] == "new"
    assert len(looks) == 51


async def test_what_can_wait_does_not_wait_for_ever() -> None:
    clock, looks = FakeClock(), []

    async def work(key: str) -> None:
        looks.append(key)

    queue = WorkQueue(work, clock)
    queue.add("settled", can_wait=True)
    await clock.advance(PATIENCE_SECONDS + 1)
    queue.add("new")
    task = asyncio.create_task(queue.run(workers=1))
    await settle()
    queue.stop()
    await asyncio.wait_for(task, 5)
    assert looks == ["settled", "new"]
