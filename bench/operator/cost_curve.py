"""What `make bench-operator` printed for several numbers of objects, as one table and one plot.

    python bench/operator/cost_curve.py PLOT.svg 100.md 300.md 1000.md

The table goes to stdout: a row for each figure, a column for each run, missed bars in bold.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

_BURST = re.compile(r"burst of (\d+): ")
_ALL_READY = re.compile(r"all Ready after (\d+) s")
SECONDS = {"all seen": "all seen, s", "all first Jobs": "burst: all first Jobs, s"}


class Figure(NamedTuple):
    """One row of a run."""

    bar: str
    measured: float
    is_met: bool
    note: str


class Run(NamedTuple):
    """One run, its figures by name; the number of objects is taken out of the names."""

    objects: int
    figures: dict[str, Figure]

    @property
    def all_ready_seconds(self) -> float:
        """Until the last object of the burst served."""
        notes = " ".join(figure.note for figure in self.figures.values())
        found = _ALL_READY.search(notes)
        if not found:
            sys.exit(f"the run with {self.objects} objects does not say when all were Ready")
        return float(found[1])


def main(plot: Path, files: list[Path]) -> None:
    """Read, print and draw."""
    runs = sorted((read_run(file) for file in files), key=lambda run: run.objects)
    print(table(runs))
    draw(runs, plot)


def read_run(file: Path) -> Run:
    """The table in a file, whatever else stands around it."""
    text = file.read_text()
    burst = _BURST.search(text)
    if not burst:
        sys.exit(f"{file} holds no table of make bench-operator")
    figures = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"\d[\d.e+-]*", cells[2]):
            name = _BURST.sub("burst: ", re.sub(r" with \d+ settled", "", cells[0]))
            figures[name] = Figure(cells[1], float(cells[2]), cells[3] == "yes", cells[4])
    return Run(int(burst[1]), figures)


def table(runs: list[Run]) -> str:
    """Markdown; a bar that grows with the objects is told for each run."""
    head = " | ".join(f"{run.objects} objects" for run in runs)
    lines = [f"| figure | at most | {head} |", f"| --- | --- |{' --- |' * len(runs)}"]
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        found = [run.figures.get(name) for run in runs]
        bars = list(dict.fromkeys(figure.bar for figure in found if figure))
        cells = [
            "" if f is None else f"{f.measured:g}" if f.is_met else f"**{f.measured:g}**"
            for f in found
        ]
        lines.append(f"| {name} | {' / '.join(bars)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(runs: list[Run], plot: Path) -> None:
    """Seconds until the burst is seen, at work and serving, and memory once settled."""
    objects = [run.objects for run in runs]
    matplotlib.rcParams["svg.hashsalt"] = "operator-cost"
    figure, (seconds, memory) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for label, name in SECONDS.items():
        key = next(key for key in runs[0].figures if key.endswith(name))
        seconds.plot(objects, [run.figures[key].measured for run in runs], marker="o", label=label)
    seconds.plot(objects, [r.all_ready_seconds for r in runs], marker="o", label="all Ready")
    seconds.set(xscale="log", yscale="log", xlabel="objects created at once", ylabel="seconds")
    seconds.legend()
    resident = [run.figures["settled: resident MiB"].measured for run in runs]
    memory.plot(objects, resident, marker="o")
    memory.set(xlabel="objects, settled", ylabel="resident memory, MiB", ylim=(0, None))
    for axes in (seconds, memory):
        axes.set_xticks(objects, [str(n) for n in objects], minor=False)
        axes.grid(alpha=0.3)
    figure.savefig(plot, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
