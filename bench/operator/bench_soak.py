"""Whether the operator stays as it is while work comes and goes: `make bench-soak`.

    python bench/operator/bench_soak.py [--minutes 10] [--objects 10] [--seed 0]

A crowd of equal size all the time: one object goes, another comes, specs are edited, Jobs vanish
and statuses are wiped, at random but the same in each run of a seed. Memory, tasks and files are
read all the while. The slope is Theil and Sen's with its 95 % interval, over the last two thirds.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crowd import Story
from scipy import stats
from stand import Stand, stand
from subject import value

RESYNC_SECONDS = 10.0
SAMPLE_SECONDS = 2.0
STEP_LIMIT_SECONDS = 300.0
MEBI = 2**20
READ = {
    "resident MiB": ("process_resident_memory_bytes", MEBI),
    "open files": ("process_open_fds", 1),
    "tasks": ("lora_operator_event_loop_tasks", 1),
}


@dataclass
class Soak:
    """One run.

    Attributes:
        samples: (seconds, by what is read).
        done: How often each kind of step was taken.
    """

    there: Stand
    objects: int
    minutes: float
    chance: random.Random
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Churn and read until the time is up."""
        await asyncio.to_thread(self.there.subject.start)
        living = list(range(self.objects))
        await self._until_ready(await self.there.crowd.add(range(self.objects)))
        reading = asyncio.create_task(self._read())
        end = time.monotonic() + 60 * self.minutes
        try:
            while time.monotonic() < end:
                await self._step(living)
                told = ", ".join(f"{v:.0f} {k}" for k, v in self.samples[-1][1].items())
                print(f"  {(end - time.monotonic()) / 60:.1f} min left: {told}", flush=True)
        finally:
            reading.cancel()

    async def _step(self, living: list[int]) -> None:
        crowd = self.there.crowd
        kind = self.chance.choice(("replaced", "edited", "Job lost", "status wiped"))
        number = self.chance.choice(living)
        if kind == "replaced":
            living.remove(number)
            await crowd.remove(number)
            living.append(new := max(living) + 1)
            await self._until_ready(await crowd.add(range(new, new + 1)))
        elif kind == "edited":
            edit = sum(self.done.values())
            await self._until_ready([await crowd.change(number, f"edited-{edit}")])
        elif kind == "Job lost":
            await crowd.lose_job(number)
        else:
            crowd.stories[crowd.key(number)].ready = None
            await crowd.wipe_status(number)
            await self._until_ready([crowd.stories[crowd.key(number)]])
        self.done[kind] += 1

    async def _until_ready(self, stories: Sequence[Story]) -> None:
        deadline = time.monotonic() + STEP_LIMIT_SECONDS
        while any(s.ready is None for s in stories):
            if time.monotonic() > deadline:
                raise SystemExit(f"not ready within {STEP_LIMIT_SECONDS:.0f} s of a step")
            await asyncio.sleep(0.05)

    async def _read(self) -> None:
        began = time.monotonic()
        while True:
            found = await asyncio.to_thread(self.there.subject.samples)
            read = {name: value(found, metric) / unit for name, (metric, unit) in READ.items()}
            self.samples.append((time.monotonic() - began, read))
            await asyncio.sleep(SAMPLE_SECONDS)

    def report(self) -> None:
        """Print what was done and whether it is flat."""
        steps = ", ".join(f"{count} {kind}" for kind, count in sorted(self.done.items()))
        print(f"{self.objects} objects, {self.minutes:g} minutes: {steps}")
        print("| read | at a third | at the end | slope, 95 % interval | flat |")
        print("| --- | --- | --- | --- | --- |")
        late = self.samples[len(self.samples) // 3 :]
        hours = [seconds / 3600 for seconds, _ in late]
        for name in READ:
            values = [read[name] for _, read in late]
            slope = stats.theilslopes(values, hours)
            flat = "yes" if slope.low_slope <= 0 else "**no**"
            interval = f"[{slope.low_slope:+.2f}, {slope.high_slope:+.2f}]"
            ends = f"{values[0]:.1f} | {values[-1]:.1f}"
            print(f"| {name} | {ends} | {interval} an hour | {flat} |")


async def soak(chosen: argparse.Namespace, folder: Path) -> Soak:
    """Start everything, churn, end it."""
    async with stand(folder, ["team-0"], RESYNC_SECONDS) as there:
        run = Soak(there, chosen.objects, chosen.minutes, random.Random(chosen.seed))
        await there.while_it_stands(run.run())
        return run


def main() -> None:
    """Churn, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--objects", type=int, default=10, help="at any time")
    parser.add_argument("--seed", type=int, default=0, help="of the order of steps")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder:
        asyncio.run(soak(chosen, Path(folder))).report()


if __name__ == "__main__":
    main()
