"""Tables and lines for the terminal; what they say is decided in `story`."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_api.gates import Verdict
from lora_api.runbooks import Runbook
from lora_api.status import BenchmarkStatus, GateStatus, Phase, ReleaseStatus, StageState
from lora_cli.story import NOT_STARTED, StageLine, Story, duration

_COLOURS = {
    StageState.SUCCEEDED: "green", StageState.RUNNING: "cyan", StageState.WAITING: "yellow",
    StageState.FAILED: "red", NOT_STARTED: "dim", Phase.SERVING: "green", Phase.REJECTED: "red",
    Phase.STALLED: "red", Phase.WAITING: "yellow", Verdict.PASSED: "green", Verdict.FAILED: "red",
    Verdict.ERROR: "red", Verdict.INCONCLUSIVE: "yellow",
}  # fmt: skip


def status(story: Story) -> RenderableType:
    """The whole of `kubectl lora status`."""
    parts: list[RenderableType] = [_head(story)]
    if story.message:
        parts.append(Text(f"{story.reason}: {story.message}"))
    parts += [_Step(step) for step in story.next_steps]
    if story.stages:
        parts.append(_stages(story))
    if story.accelerator_seconds:
        held = duration(story.accelerator_seconds)
        parts.append(Text(f"cost     accelerators held for {held} by this run"))
    if story.gates:
        parts.append(gates(story.gates))
    if story.report_uri:
        parts.append(Text(f"report   {story.report_uri}"))
    if story.serving and story.serving.url:
        parts.append(_serving(story))
    return Group(*parts)


@dataclass(frozen=True)
class _Step:
    """What to do; its command is copied from here, so it is not cut in two where it need not be."""

    text: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        line = f"-> {self.text}"
        if len(line) > options.max_width:
            line = line.replace(": kubectl ", ":\n   kubectl ")
        yield Text(line, style="bold")


def _head(story: Story) -> Text:
    head = Text(f"{story.namespace}/{story.name}  ", style="bold")
    head.append(_coloured(story.phase))
    head.append(f"  Ready={story.ready}  generation {story.generation}", style="not bold")
    return head


def _serving(story: Story) -> Text:
    serving = story.serving
    assert serving is not None  # it has a url
    pods = f"{serving.ready_replicas}/{serving.replicas} pods"
    return Text(f"serving  release {serving.release} on {pods} at {serving.url}")


def _stages(story: Story) -> Table:
    table = _table("STAGE", "STATE", "TIME", "ACCELERATORS", "PROGRESS", "")
    for line in story.stages:
        name = f"{line.name} ({line.candidate})" if line.candidate else line.name
        table.add_row(
            name,
            Text("Reused", style="green") if line.reused else _coloured(line.state),
            "" if line.seconds is None else duration(line.seconds),
            duration(line.accelerator_seconds) if line.accelerator_seconds else "",
            _progress(line),
            _said(line, story),
        )
    return table


def _said(line: StageLine, story: Story) -> Text:
    """What the head says already is not said twice."""
    if line.reason and (line.reason, line.message) == (story.reason, story.message):
        return Text(line.reason)
    return Text(f"{line.reason}: {line.message}" if line.reason else line.message)


def _progress(line: StageLine) -> str:
    left = "" if line.eta_seconds is None else f", {duration(line.eta_seconds)} left"
    return f"{line.progress}{left}" if line.progress else ""


def gates(found: Iterable[GateStatus]) -> Table:
    """The judged gates."""
    table = _table("GATE", "OBSERVED", "95 %", "LIMIT", "MODE", "VERDICT", "")
    for gate in found:
        table.add_row(
            gate.name, gate.observed, Text(gate.interval), gate.limit, gate.mode,
            _coloured(gate.verdict), Text(gate.message),
        )  # fmt: skip
    return table


def report(measured: BenchmarkStatus) -> RenderableType:
    """The four conditions, the gates, and where the whole report lies."""
    table = _table("METRIC", "BASE", "DYNAMIC", "MERGED", "QUANTIZED")
    for row in measured.results:
        table.add_row(row.metric, row.base, row.dynamic, row.merged, row.quantized)
    head = Text("verdict  ").append(_coloured(measured.verdict))
    where = measured.report_uri or "not written yet"
    return Group(head, table, gates(measured.gates), Text(f"report   {where}"))


def releases(found: Iterable[tuple[ReleaseStatus, bool]]) -> Table:
    """Releases, newest first; what serves is marked."""
    table = _table("", "NUMBER", "RELEASE", "DIGEST", "VERDICT", "CREATED")
    for release, serves in found:
        table.add_row(
            "*" if serves else "", str(release.number), release.id, release.digest,
            _coloured(release.verdict), release.created_at,
        )  # fmt: skip
    return table


def kept(found: Iterable[tuple[ReleaseStatus, str]]) -> Table:
    """Releases, newest first, and why each stays, if it does."""
    table = _table("NUMBER", "RELEASE", "CREATED", "STAYS")
    for release, why in found:
        table.add_row(
            str(release.number), release.id, release.created_at, why or Text("goes", style="yellow")
        )
    return table


def runbook(reason: str, entry: Runbook) -> RenderableType:
    """What a reason means, how to look, how to fix it."""
    parts: list[RenderableType] = [Text(reason, style="bold"), Text(entry.means)]
    for title, text in (("How to look", entry.look), ("How to fix", entry.fix)):
        if text:
            parts += [Text(title, style="bold"), Padding(Text(text), (0, 0, 0, 2))]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _coloured(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))
