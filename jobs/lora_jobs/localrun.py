"""The line without a cluster: resolve to publish as child processes on this machine.

It asks `lora_api.line.walk` for the next step exactly as the operator does, hands over the same
requests and reads the same results, so that a local run and a cluster that share a store reuse each
other's work. A child is a process of its own, as a Job is: what a stage leaks ends with it.
"""

import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lora_api import layout
from lora_api.gates import Judgement, Verdict
from lora_api.jobcontract import (
    REQUEST_ENV,
    RESULT_PATH_ENV,
    WORK_DIR_ENV,
    WORKING_STAGES,
    ExitCode,
    PinnedSource,
    Progress,
    RunReference,
    Stage,
    StageCall,
    StageFailure,
    StageRequest,
    StageResult,
    StoreReference,
    parse_outcome,
)
from lora_api.line import Line, walk
from lora_api.requests import StageRequests
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import Refused, Waiting
from lora_jobs.manifest import Manifest
from lora_jobs.runner import REUSED

DEFAULT_IMAGE = "local"
"""There is no serving image here; the engine is what is installed."""
_LOG_TAIL_LINES = 20


class View(Protocol):
    """Who watches a run."""

    def started(self, call: StageCall) -> None:
        """A stage begins."""
        ...

    def progressed(self, progress: Progress) -> None:
        """The running stage moved."""
        ...

    def finished(self, call: StageCall, result: StageResult, reused: bool) -> None:
        """A stage is done; `reused`: nothing ran for it."""
        ...


class StageCrashed(Exception):
    """A stage program ended without a result or a reason; the message holds its last lines."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ran: Working stages that did something in this run.
        report_uri: Where the report lies.
    """

    line: Line
    judgement: Judgement
    ran: tuple[StageCall, ...]
    report_uri: str = ""

    @property
    def passed(self) -> bool:
        """Whether the model may serve."""
        return self.judgement.verdict is Verdict.PASSED


@dataclass
class LocalRun:
    """One run of one object.

    Attributes:
        work: Fetched inputs, results and logs of the stages.
    """

    manifest: Manifest
    work: Path
    view: View
    _results: dict[str, StageResult] = field(default_factory=dict)
    _ran: list[StageCall] = field(default_factory=list)

    def run(self) -> Outcome:
        """Resolve, work until all is judged, report, publish.

        Raises:
            StageError: A stage refuses or waits.
            StageCrashed: A stage ended in another way.
        """
        requests = self._requests()
        resolving = StageCall(stage=Stage.RESOLVE, parameters={"run": requests.run.to_json()})
        resolved = self._child(requests.resolve(resolving, DEFAULT_IMAGE))
        for result in resolved.done:
            self._results[result.input_hash] = result
        line = self._work(requests, resolved.pins, resolved.image)
        assert line.judgement is not None  # nothing is missing, so it was judged
        report = self._child(requests.report(line, resolved.pins, resolved.image))
        publish = requests.publish(line, resolved.pins, resolved.image)
        if publish:
            self._child(publish)
        return Outcome(line, line.judgement, tuple(self._ran), report.report_uri)

    def _requests(self) -> StageRequests:
        manifest, place = self.manifest, self.manifest.spec.artifact
        return StageRequests(
            spec=manifest.spec,
            run=RunReference(namespace=manifest.namespace, name=manifest.name, uid="local"),
            store=StoreReference(
                uri=place.uri,
                scope=layout.scope(manifest.namespace),
                connection=place.connection if place.uri.startswith("s3://") else "",
            ),
        )

    def _work(self, requests: StageRequests, pins: dict[str, PinnedSource], image: str) -> Line:
        digests = {name: pin.digest for name, pin in pins.items()}
        shown: set[str] = set()
        while True:
            line = walk(self.manifest.spec, self.manifest.name, digests, image, self._known)
            ran = {call.input_hash for call in self._ran}
            for call, result in line.done:
                if call.input_hash not in shown:
                    self.view.finished(call, result, reused=call.input_hash not in ran)
            shown = {call.input_hash for call, _ in line.done}
            if line.missing is None:
                return line
            result = self._child(requests.work(line.missing, pins))
            self._results[result.input_hash] = result

    def _known(self, call: StageCall) -> StageResult | None:
        return self._results.get(call.input_hash)

    def _child(self, request: StageRequest) -> StageResult:
        """Run a stage program to its end and read its result."""
        call = request.call
        self.view.started(call)
        label = f"{len(self._ran):02}-{call.stage}"
        result_path, log = self.work / f"{label}.result.json", self.work / f"{label}.log"
        self.work.mkdir(parents=True, exist_ok=True)
        result_path.unlink(missing_ok=True)
        environment = os.environ | {
            REQUEST_ENV: request.to_env(),
            RESULT_PATH_ENV: str(result_path),
            WORK_DIR_ENV: str(self.work),
            LOCAL_RUN_ENV: "1",
        }
        code = self._follow(environment, log)
        outcome = parse_outcome(result_path.read_text()) if result_path.exists() else None
        if code == ExitCode.DONE and isinstance(outcome, StageResult):
            if call.stage not in WORKING_STAGES:
                self.view.finished(call, outcome, reused=False)
            elif outcome.message != REUSED:
                self._ran.append(call)
            return outcome
        raise _failure(call, code, outcome, log)

    def _follow(self, environment: dict[str, str], log: Path) -> int:
        command = [sys.executable, "-m", "lora_jobs", "stage"]
        with (
            log.open("w") as sink,
            subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=sink
            ) as child,
        ):
            assert child.stdout is not None  # it is a pipe
            try:
                for line in child.stdout:
                    progress = Progress.from_line(line)
                    if progress:
                        self.view.progressed(progress)
                    else:
                        sink.write(line)
            except BaseException:
                child.terminate()  # it ends within seconds, see `termination`
                raise
            return child.wait()


def _failure(
    call: StageCall, code: int, outcome: StageResult | StageFailure | None, log: Path
) -> Exception:
    if isinstance(outcome, StageFailure) and code in (ExitCode.REFUSED, ExitCode.WAITING):
        kind = Refused if code == ExitCode.REFUSED else Waiting
        return kind(outcome.failure, outcome.message)
    with log.open(errors="replace") as lines:
        tail = "".join(deque(lines, maxlen=_LOG_TAIL_LINES)).strip()
    return StageCrashed(f"{call.stage} ended with exit code {code}; the end of {log}:\n{tail}")
