"""How `lora-jobs run` looks: a line a stage, a bar for the running one, two tables at the end."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from lora_api.digests import short
from lora_api.gates import CONDITIONS, Judgement, Verdict
from lora_api.jobcontract import WORKING_STAGES, Progress, StageCall, StageResult
from lora_jobs.conditiontable import condition_rows
from lora_jobs.localrun import Outcome

_STYLES = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "red",
    Verdict.ERROR: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_APPLICABLE: "dim",
}


class ConsoleView:
    """A run on a terminal; without one, the finished stages only."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task("", total=None, visible=False, state="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def started(self, call: StageCall) -> None:
        """Shows the bar; a log gets a line instead."""
        if not self.console.is_terminal:
            self.console.print(f"  {_title(call)} ...", highlight=False)
        self._bars.reset(
            self._task, total=None, description=_title(call), visible=True, state="starting"
        )

    def progressed(self, progress: Progress) -> None:
        """Moves the bar."""
        eta = "" if progress.eta_seconds is None else f", about {_span(progress.eta_seconds)} left"
        state = f"{_amount(progress)}{eta} {progress.message}"
        self._bars.update(
            self._task, completed=progress.done, total=progress.total or None, state=state
        )

    def finished(self, call: StageCall, result: StageResult, reused: bool) -> None:
        """Prints the stage's line."""
        self._bars.update(self._task, visible=False)
        how = "[cyan]reused, nothing ran[/]" if reused else f"done in {_span(result.seconds)}"
        what = f"  sha256:{short(result.digest, 12)}" if result.digest else ""
        note = "" if reused or not result.message else f"  [dim]{result.message}[/]"
        self.console.print(
            f"  {_title(call):<24} {how}{what}{note}", highlight=False, soft_wrap=True
        )


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Tables, verdict, where the report is, and whether anything ran at all."""
    console.print(conditions_table(outcome.line.measurements))
    console.print(_gates_table(outcome.judgement))
    line = outcome.line
    verdict = outcome.judgement.verdict
    console.print(
        f"Verdict: [{_STYLES[verdict]}]{verdict}[/] ({outcome.judgement.summary} gates), "
        f"candidate {line.candidate}, {line.served} model {line.artifact or 'none'}",
        soft_wrap=True,
    )
    if line.release:
        console.print(f"Release {line.release.id} is published")
    if outcome.report_uri:
        console.print(f"Report: {outcome.report_uri}", soft_wrap=True)
    if not outcome.ran:
        console.print("No stage ran again: every result was in the store")


def conditions_table(
    measurements: Mapping[str, Mapping[str, str]], title: str = "Four conditions"
) -> Table:
    """The table of `condition_rows`; cells of a metric by condition, as a status holds them too."""
    table = Table(title=title)
    table.add_column("")
    for condition in CONDITIONS:
        table.add_column(condition, justify="right")
    table.add_column("quantized vs base", justify="right")
    for row in condition_rows(measurements):
        table.add_row(row.label, *row.cells, row.change)
    return table


def _gates_table(judgement: Judgement) -> Table:
    table = Table(title="Gates")
    for column in ("gate", "observed", "95 % interval", "limit", "mode", "verdict", ""):
        table.add_column(column)
    for gate in judgement.gates:
        style = _STYLES[gate.verdict]
        table.add_row(
            gate.name, gate.observed or "-", escape(gate.interval), gate.limit, gate.mode,
            f"[{style}]{gate.verdict}[/]", gate.message,
        )  # fmt: skip
    return table


def _title(call: StageCall) -> str:
    named = call.stage in WORKING_STAGES and call.candidate
    return f"{call.stage} ({call.candidate})" if named else str(call.stage)


def _amount(progress: Progress) -> str:
    if progress.unit == "bytes":
        return f"{progress.done / 2**20:,.0f}/{progress.total / 2**20:,.0f} MiB"
    return f"{progress.done}/{progress.total} {progress.unit}"


def _span(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
