"""How far the run is: resolve, the line of stages, then report and publish."""

from dataclasses import dataclass, replace

from lora_api.jobcontract import Stage, StageCall, StageRequest, StageResult
from lora_api.line import Line, walk
from lora_api.status import StageState, StageStatus
from lora_operator.bringup import Wanted
from lora_operator.pinning import Pin, follow_pin
from lora_operator.probing import follow_probe
from lora_operator.resolving import Resolution, recall, resolve
from lora_operator.step import Step, changed, pending_entry, taken_step
from lora_operator.view import View, result_of
from lora_operator.working import follow_working_stage


@dataclass(frozen=True)
class Run:
    """One look at a run.

    Attributes:
        resolution: The pins, and whether the store was asked.
        line: How far the stages are; None while the pins are unknown.
        stage: The stage under way.
        report: The report of the judged run.
        publish: The release record, when the gates have passed.
        finished: The line's finished stages, as status tells them.
        id: Identity of the run's inputs, empty while the pins are unknown.
        is_suspended: It goes no further while `spec.suspend` is true.
        pin: The release that shall serve whatever the line says; no stage runs then.
        collect: The removal of releases that are not kept, once all else is settled.
    """

    resolution: Resolution
    line: Line | None = None
    stage: Step | None = None
    report: Step | None = None
    publish: Step | None = None
    finished: tuple[StageStatus, ...] = ()
    id: str = ""
    is_suspended: bool = False
    pin: Pin | None = None
    collect: Step | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in their order."""
        if self.pin:
            return (self.pin.step,) if self.pin.step else ()
        steps = (self.resolution.step, self.stage, self.report, self.publish, self.collect)
        return tuple(s for s in steps if s)

    @property
    def report_uri(self) -> str:
        """Where the report of this very judgement lies, empty while it is not written."""
        return self.report.entry.message if self.report and self.report.succeeded else ""

    @property
    def is_measured(self) -> bool:
        """Whether nothing of the line is missing."""
        return self.line is not None and self.line.missing is None

    @property
    def knows_its_work(self) -> bool:
        """Whether the stage under way is surely the one that is wanted, not one to be replaced."""
        if self.pin:
            return True
        return self.line is not None and (self.is_measured or self.resolution.is_current)

    @property
    def wanted(self) -> Wanted | None:
        """The release that may roll out: published or pinned."""
        if self.pin:
            return self.pin.wanted
        line = self.line
        if line is None or line.release is None or not (self.publish and self.publish.succeeded):
            return None
        benchmark = next(r.input_hash for c, r in line.done if c.stage is Stage.BENCHMARK)
        return Wanted(line.release, line.candidate, benchmark)

    @property
    def coming(self) -> str:
        """Id of the release that this run leads to, as far as it is known; else empty."""
        if self.pin:
            return self.pin.release
        return self.line.release.id if self.line and self.line.release else ""


def follow_run(view: View) -> Run:
    """Look how far the run is, and what its next Job is."""
    known = recall(view)
    line = _walk(view, known)
    if pin := follow_pin(view):
        return _with_line(view, known, line, pin)
    if _resolve_matters(known, line):
        known = resolve(view, known)
        line = _walk(view, known) if known.found is not None else line
    else:
        known = known.taken_over()
    run = _with_line(view, known, line)
    if line is None:
        return run
    return _concluded(view, run) if line.missing is None else _under_way(view, run, line.missing)


def _with_line(view: View, known: Resolution, line: Line | None, pin: Pin | None = None) -> Run:
    """What is known before any step is looked at."""
    if line is None:
        return Run(known, is_suspended=view.spec.suspend, pin=pin)
    return Run(
        known,
        line,
        is_suspended=view.spec.suspend,
        finished=tuple(_finished(view, call, result, known) for call, result in line.done),
        id=view.requests.run_id(known.pins, known.image),
        pin=pin,
    )


def _resolve_matters(known: Resolution, line: Line | None) -> bool:
    """With all measured, a resolve that passed for other gates needs no successor."""
    is_measured = line is not None and line.missing is None
    has_passed = known.step.entry.state is StageState.SUCCEEDED
    return not (is_measured and has_passed and not known.is_current)


def _walk(view: View, known: Resolution) -> Line | None:
    if not known.pins:
        return None
    results = {**(known.found or {}), **view.results}
    name = view.parent.name
    return walk(
        view.spec, name, known.digests, known.image, lambda call: results.get(call.input_hash)
    )


def _under_way(view: View, run: Run, missing: StageCall) -> Run:
    known = run.resolution
    stage = follow_working_stage(
        view, missing, lambda call: view.requests.work(call, known.pins), known.is_current
    )
    if stage.asks_store and known.is_current:
        return replace(run, resolution=resolve(view, known, again=True), stage=stage)
    return replace(run, stage=stage)


def _concluded(view: View, run: Run) -> Run:
    """Report on every verdict; publish what may roll out."""
    line, known = run.line, run.resolution
    assert line is not None  # it is measured
    report = _follow_report(view, view.requests.report(line, known.pins, known.image))
    publish = view.requests.publish(line, known.pins, known.image)
    if publish is None or not _report_is_over(report) or view.is_collecting:
        return replace(run, report=report)
    return replace(run, report=report, publish=follow_probe(view, publish))


def _follow_report(view: View, request: StageRequest) -> Step:
    """The report probe; its stage in status carries the report's URI as its message."""
    step = follow_probe(view, request)
    uri = step.result.report_uri if step.result else ""
    return replace(step, entry=changed(step.entry, message=uri)) if uri else step


def _report_is_over(report: Step) -> bool:
    """A report that failed, once, blocks nothing: it is told, and the release goes on."""
    return report.succeeded or report.entry.state is StageState.FAILED or report.entry.attempt > 0


def _finished(view: View, call: StageCall, result: StageResult, known: Resolution) -> StageStatus:
    """A finished stage: as remembered, else from its Job, else as the store had it."""
    entry = view.entry(call.stage, result.input_hash)
    if entry and entry.state is StageState.SUCCEEDED:
        return changed(entry, candidate=call.candidate)
    entry = entry or pending_entry(call)
    for job in view.jobs_of(call.stage, result.input_hash):
        if result_of(job):
            return taken_step(entry, job, result).entry
    return changed(
        pending_entry(call),
        state=StageState.SUCCEEDED,
        digest=result.digest,
        reused=True,
        measurements=result.measurements or None,
        message=result.message,
    )
