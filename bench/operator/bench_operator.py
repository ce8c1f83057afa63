"""The operator's bars on a real API server: `make bench-operator`.

    python bench/operator/bench_operator.py [--objects 1000] [--one-by-one 30] [--bystanders]

etcd, kube-apiserver and controller-manager are real; nodes are played: a pod ends as soon as it is
seen, so that what takes time is the control plane. All of it shares the machine with the operator,
so throughput is a lower bound. One object after the other shows the operator alone.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bystanders import add_bystanders
from crowd import Story
from stand import Stand, stand
from subject import Samples, calls, quantile, value, writes

from planning_world import World

LAG = "lora_operator_event_loop_lag_seconds"
RESYNC_SECONDS = 60.0
OBJECTS_OF_A_NAMESPACE = 50
MEBI = 2**20


@dataclass(frozen=True)
class Row:
    """A bar (at most) and what was measured."""

    figure: str
    bar: float
    measured: float
    note: str = ""


@dataclass
class Bench:
    """One run."""

    objects: int
    one_by_one: int
    quiet_seconds: float
    with_bystanders: bool
    there: Stand
    rows: list[Row] = field(default_factory=list)

    async def run(self) -> list[Row]:
        """Everything, in the order in which it is told."""
        started = await asyncio.to_thread(self.there.subject.start)
        await self._one_by_one(started)
        await self._burst()
        await self._settled()
        if self.with_bystanders:
            await self._bystanders()
        await self._restart()
        self.rows.append(Row("plan() of an object that serves, ms", 1, _plan_ms()))
        return self.rows

    async def _one_by_one(self, started: float) -> None:
        await self._burst_of(range(2))  # warm: caches of the API server, code of the operator
        stories, before = [], await self._samples()
        for number in range(2, 2 + self.one_by_one):
            stories += await self._burst_of(range(number, number + 1))
        after = await self._samples()
        seen = [s.seen - s.created for s in stories if s.seen]
        handovers = [h for s in stories for h in s.handovers()]
        per_object = (writes(after) - writes(before)) / len(stories)
        self.rows += [
            Row("start to answering probes, s", 15, started, "no objects"),
            Row("object to first conditions, median, s", 0.3, statistics.median(seen)),
            Row("object to first conditions, p99, s", 2, _p99(seen), f"of {len(seen)}"),
            Row("a Job's end to the next Job, p99, s", 2, _p99(handovers), f"of {len(handovers)}"),
            Row("writes of a whole run", 40, per_object, _by_kind(before, after, len(stories))),
        ]

    async def _burst(self) -> None:
        first, before = 2 + self.one_by_one, await self._samples()
        began = time.monotonic()
        stories = await self._burst_of(range(first, first + self.objects))
        after = await self._samples()
        all_ready = max(s.ready or 0 for s in stories) - began
        cpu = _cpu(after) - _cpu(before)
        seen = max(s.seen or 0 for s in stories) - began
        first_job = max(min(s.jobs.values()) for s in stories) - began
        handovers = [h for s in stories for h in s.handovers()]
        self.rows += [
            Row(f"burst of {self.objects}: all seen, s", 10 * self.objects / 1000, seen),
            Row("burst: all first Jobs, s", 60 * self.objects / 1000, first_job),
            Row("burst: a Job's end to the next Job, p99, s", 2, _p99(handovers),
                f"all Ready after {all_ready:.0f} s"),
            Row("burst: event loop lag, p99, s", 0.02, quantile(before, after, LAG, 0.99),
                f"largest below {quantile(before, after, LAG, 1.0):g}; the operator took "
                f"{cpu / all_ready:.0%} of a core, {1000 * cpu / len(stories):.0f} ms an object"),
        ]  # fmt: skip

    async def _settled(self) -> None:
        await asyncio.sleep(RESYNC_SECONDS * 1.5)  # memory of the burst is given back
        before = await self._samples()
        await asyncio.sleep(self.quiet_seconds)
        after = await self._samples()
        cpu = _cpu(after) - _cpu(before)
        memory = value(after, "process_resident_memory_bytes") / MEBI
        jobs = sum(len(s.jobs) for s in self.there.crowd.stories.values())
        self.rows += [
            Row("settled: writes", 0, writes(after) - writes(before),
                f"in {self.quiet_seconds:.0f} s, every object looked at each {RESYNC_SECONDS:.0f}"),
            Row("settled: resident MiB", 120 * 1e6 / MEBI * max(1, self.objects / 1000), memory,
                f"{len(self.there.crowd.stories)} objects, {jobs} Jobs"),
            Row("settled: event loop lag, p99, s", 0.02, quantile(before, after, LAG, 0.99)),
            Row("settled: CPU, cores", 0.01, cpu / self.quiet_seconds,
                f"at a resync of {RESYNC_SECONDS:.0f} s; the default is 600 s"),
        ]  # fmt: skip

    async def _bystanders(self) -> None:
        before = value(await self._samples(), "process_resident_memory_bytes")
        told = await add_bystanders(self.there.api)
        await asyncio.sleep(RESYNC_SECONDS * 1.5)
        after = value(await self._samples(), "process_resident_memory_bytes")
        self.rows.append(Row("bystanders: more resident MiB", 2, (after - before) / MEBI, told))

    async def _restart(self) -> None:
        count = len(self.there.crowd.stories)
        settled = await self.there.crowd.versions()
        self.there.subject.kill()
        serves = await asyncio.to_thread(self.there.subject.start)
        began = time.monotonic()
        (story,) = await self.there.crowd.add(range(10**6, 10**6 + 1))
        await self._until([story], lambda s: s.seen)
        looked = (story.seen or 0) - began
        await self._until([story], lambda s: s.ready)
        await asyncio.sleep(RESYNC_SECONDS * 1.2)
        now = await self.there.crowd.versions()
        written = sum(now.get(path) != version for path, version in settled.items())
        self.rows += [
            Row(f"kill -9 with {count} settled: answers probes, s", 15, serves),
            Row("kill -9: a new object's first conditions, s more", 5, looked),
            Row("kill -9: settled objects and children that were written to", 0, written,
                f"of {len(settled)}"),
            Row("SIGTERM to the end, s", 3, await asyncio.to_thread(self.there.subject.stop)),
        ]  # fmt: skip

    async def _burst_of(self, numbers: range) -> list[Story]:
        stories = await self.there.crowd.add(numbers)
        await self._until(stories, lambda s: s.ready)
        return stories

    async def _until(self, stories: Sequence[Story], what: Callable[[Story], float | None]) -> None:
        deadline, told = time.monotonic() + 60 + 4 * len(stories), time.monotonic()
        while left := sum(1 for s in stories if what(s) is None):
            if time.monotonic() > deadline:
                raise SystemExit(f"{left} of {len(stories)} objects never came so far")
            if time.monotonic() > told + 10:
                told = time.monotonic()
                print(f"  {len(stories) - left} of {len(stories)}", flush=True)
            await asyncio.sleep(0.02)

    async def _samples(self) -> Samples:
        return await asyncio.to_thread(self.there.subject.samples)


def _cpu(samples: Samples) -> float:
    return value(samples, "process_cpu_seconds_total")


def _plan_ms() -> float:
    world = World()
    world.settle()
    return min(timeit.repeat(world.plan, number=100, repeat=5)) * 10


def _p99(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _by_kind(before: Samples, after: Samples, objects: int) -> str:
    old, found = calls(before), {}
    for (verb, resource, code), count in calls(after).items():
        more = (count - old.get((verb, resource, code), 0.0)) / objects
        if more >= 0.05 and verb.lower() not in ("get", "list"):
            found[f"{verb} {resource} {code}"] = more
    return ", ".join(f"{name}: {more:.1f}" for name, more in sorted(found.items()))


async def measure(chosen: argparse.Namespace, folder: Path) -> list[Row]:
    """Start everything, measure, end it."""
    names = [f"team-{n}" for n in range(1 + chosen.objects // OBJECTS_OF_A_NAMESPACE)]
    async with stand(folder, names, RESYNC_SECONDS) as there:
        bench = Bench(chosen.objects, chosen.one_by_one, chosen.quiet, chosen.bystanders, there)
        return await there.while_it_stands(bench.run())


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000, help="created at once")
    parser.add_argument("--one-by-one", type=int, default=30, help="before that")
    parser.add_argument("--quiet", type=float, default=120.0, help="seconds of settled watching")
    parser.add_argument("--bystanders", action="store_true", help="10,000 Pods, 300 large Secrets")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-operator-") as folder:
        rows = asyncio.run(measure(chosen, Path(folder)))
    print("| figure | at most | measured | met | |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        met = "yes" if row.measured <= row.bar else "**no**"
        print(f"| {row.figure} | {row.bar:.4g} | {row.measured:.3g} | {met} | {row.note} |")


if __name__ == "__main__":
    main()
