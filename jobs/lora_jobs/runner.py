"""The entry point of a stage Job: request in, work, action entry, result out.

    request (environment) -> context -> done before? -> stage program -> action entry -> result

A working stage whose entry exists with its artifact is not run again (P3): whoever asks twice gets
the first answer. The result goes to the termination message; a refusal goes there too, as a
`StageFailure`, and is raised on for the exit code.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from lora_api.digests import short
from lora_api.jobcontract import (
    DEFAULT_RESULT_PATH,
    REQUEST_ENV,
    RESULT_PATH_ENV,
    WORK_DIR_ENV,
    WORKING_STAGES,
    StageRequest,
    StageResult,
)
from lora_jobs.context import StageContext, StageProgram
from lora_jobs.errors import StageError
from lora_jobs.foldercache import cache_from
from lora_jobs.inputs import StoreInputs
from lora_jobs.outputs import StoreOutputs
from lora_jobs.progress import ProgressLines
from lora_jobs.provenance import tool_versions
from lora_jobs.store.actions import read_action, write_action
from lora_jobs.store.interface import ObjectStore
from lora_jobs.store.opening import open_store
from lora_jobs.store.patient import PatientStore

REUSED = "found in the store, nothing ran"


class UsageError(Exception):
    """The environment does not hold a request."""


def run_from_environment(environment: Mapping[str, str] = os.environ) -> StageResult:
    """Do what the environment asks for and leave result or failure at the result path.

    Raises:
        UsageError: There is no request, or it is not one.
        StageError: The stage refuses or waits; the failure is written already.
    """
    request = parse_request(environment)
    result_path = Path(environment.get(RESULT_PATH_ENV, DEFAULT_RESULT_PATH))
    try:
        with _work_folder(environment) as work:
            result = run_request(request, work)
    except StageError as error:
        result_path.write_text(error.to_termination_message())
        raise
    result_path.write_text(result.to_termination_message())
    return result


def parse_request(environment: Mapping[str, str]) -> StageRequest:
    """The request in the environment.

    Raises:
        UsageError: It is missing or malformed.
    """
    text = environment.get(REQUEST_ENV, "")
    if not text:
        raise UsageError(f"{REQUEST_ENV} is not set; this verb is the entry point of Jobs")
    try:
        return StageRequest.model_validate_json(text)
    except ValueError as error:
        raise UsageError(f"{REQUEST_ENV} holds no stage request: {error}") from None


def run_request(request: StageRequest, work: Path) -> StageResult:
    """Run one stage in `work`, unless its result is known.

    Args:
        request: What to do.
        work: Fetched inputs stay in `work/inputs`, for the next stage of a local run; the stage's
            own folder is removed.
    """
    began = time.monotonic()
    call = request.call
    store: ObjectStore = open_store(request.store, request.connections)
    if call.stage in WORKING_STAGES:
        store = PatientStore(store)
    if call.stage in WORKING_STAGES and (known := read_action(store, call)):
        return known.model_copy(update={"message": REUSED})
    own = work / f"{call.stage}-{short(call.input_hash, 12)}"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    try:
        result = stage_program(call.stage)(_context(request, store, work / "inputs", own))
    finally:
        shutil.rmtree(own, ignore_errors=True)
    if (result.stage, result.input_hash) != (call.stage, call.input_hash):
        raise RuntimeError(f"{call.stage} answered for {result.stage} {result.input_hash}")
    if not result.seconds:
        result = result.model_copy(update={"seconds": round(time.monotonic() - began)})
    if call.stage in WORKING_STAGES:
        return write_action(store, call, result, tool_versions())
    return result


def stage_program(stage: str) -> StageProgram:
    """The `run` of a stage's module; imported now, since each stage has its own heavy imports."""
    program: StageProgram = import_module(f"lora_jobs.stages.{stage}").run
    return program


def _context(request: StageRequest, store: ObjectStore, inputs: Path, own: Path) -> StageContext:
    progress = ProgressLines(sys.stdout)
    return StageContext(
        request=request,
        inputs=StoreInputs(request, store, inputs, progress, cache_from(os.environ)),
        outputs=StoreOutputs(store),
        work=own,
        progress=progress,
    )


@contextmanager
def _work_folder(environment: Mapping[str, str]) -> Iterator[Path]:
    given = environment.get(WORK_DIR_ENV)
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="lora-") as folder:
        yield Path(folder)
