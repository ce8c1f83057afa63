"""One condition in one fresh engine process: start, warm up, timed loops, answers, stop."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from lora_api.gates import MERGED, QUANTIZED
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import NO_ACCELERATOR, RECIPES, ServeCommand, tensor_parallel_of
from lora_jobs.benchmarking.accelerators import memory_bandwidth, nvml
from lora_jobs.benchmarking.client import Ask, ClientSaturated, CompletionClient, InvalidRun
from lora_jobs.benchmarking.conditions import Condition, serve
from lora_jobs.benchmarking.devicestate import DeviceState, DeviceWatch
from lora_jobs.benchmarking.engine import Engine, EngineDied, free_port
from lora_jobs.benchmarking.expectations import ANSWER_TOKENS, only_piece
from lora_jobs.benchmarking.metrics import RequestTrace, is_burst_run, speed_of
from lora_jobs.benchmarking.openloop import OpenLoop, Served
from lora_jobs.benchmarking.prompts import Prompt
from lora_jobs.benchmarking.roofline import bytes_a_token, fastest_token_ms

WARM_UP_ROUNDS = 2
"""Closed loops at each concurrency that are thrown away: allocators, lazy kernels, caches."""
MIN_REQUESTS = 8
REQUESTS_PER_CLIENT = 3
MAX_WINDOWS = 3
"""Loops until one is free of bursts and kept the time: a busy moment passes, a buffer
does not."""
MAX_CACHED_SHARE = 0.01
"""Of the prompts' tokens: no two prompts begin alike, but warm-up asks twice."""
BURST = (
    "the tokens arrived in bursts, which says nothing about single tokens; the model is too small "
    "for this machine or the engine buffers"
)

StartEngine = Callable[[ServeCommand, int, str, Path], Engine]


@dataclass(frozen=True)
class Work:
    """The same work for every condition.

    Attributes:
        parameters: Engine, flags and workload.
        warm_up: Prompts whose runs are thrown away.
        prompts: Prompts of the timed runs, in order.
        questions: Prompts whose answers are recorded.
        open_loop: When given, `prompts` are asked at its moments, and nothing else is.
    """

    parameters: BenchmarkParameters
    warm_up: Sequence[Prompt]
    prompts: Sequence[Prompt]
    questions: Sequence[Prompt]
    open_loop: OpenLoop | None = None


@dataclass
class ProcessRun:
    """What one engine process showed.

    Attributes:
        loops: Traces by concurrency.
        invalid: Why a concurrency has no valid run.
        dropped: Loops that were thrown away, by concurrency.
        answers: For each question, the pieces of every answer.
        again: It is the second of base in its block, for the noise floor.
        served: What became of each arrival of the open loop.
        state: What the machine did meanwhile.
        kernels: What the engine's log says of the kernels that it chose.
    """

    condition: str
    block: int
    argv: list[str]
    start_seconds: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    model: str = ""
    loops: dict[int, list[RequestTrace]] = field(default_factory=dict)
    invalid: dict[int, str] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)
    answers: list[list[tuple[str, ...]]] = field(default_factory=list)
    again: bool = False
    served: Served = ()
    state: DeviceState | None = None
    kernels: tuple[str, ...] = ()


def requests_in_loop(concurrency: int) -> int:
    """Timed requests of one closed loop."""
    return max(MIN_REQUESTS, REQUESTS_PER_CLIENT * concurrency)


def measure(
    condition: Condition,
    block: int,
    answer_rounds: int,
    work: Work,
    folder: Path,
    start: StartEngine = Engine,
) -> ProcessRun:
    """Measure a condition once.

    Args:
        condition: What to serve.
        block: For the record.
        answer_rounds: How often each question is asked.
        work: What to ask.
        folder: An empty folder; the engine's log stays in it.
        start: Makes the engine, a context manager.

    Raises:
        NotApplicable: The engine cannot serve the condition.
        EngineDied: It did not start, or ended.
    """
    began = time.monotonic()
    recipe = RECIPES[work.parameters.runtime]
    port = free_port()
    served = serve(condition, work.parameters, folder, port)
    run = ProcessRun(condition.name, block, served.command.argv)
    log = folder / "engine.log"
    with (
        DeviceWatch(work.parameters.accelerator != NO_ACCELERATOR) as watch,
        start(served.command, port, recipe.health_path, log) as engine,
    ):
        run.start_seconds = engine.start_seconds
        watch.begin(engine.processor_seconds)
        try:
            asyncio.run(_ask_all(engine.url, served.request_model, answer_rounds, work, run))
        except* httpx.TransportError:
            raise engine.died("while it is asked") from None
        run.state = watch.end()
        run.kernels = engine.kernels(recipe.kernel_lines)
        run.peak_memory_bytes = engine.peak_memory_bytes()
    _refuse_faster_than_memory(condition, work, run)
    run.seconds = time.monotonic() - began
    return run


async def _ask_all(url: str, model: str, answer_rounds: int, work: Work, run: ProcessRun) -> None:
    ask = Ask(model, work.parameters.output_tokens)
    async with CompletionClient(url, RECIPES[work.parameters.runtime]) as client:
        if work.open_loop:
            await _open_loop(client, ask, work.open_loop, work, run)
            await _refuse_cached(client, work, run)
            return
        for concurrency in work.parameters.concurrency:
            try:
                await _timed_loop(client, ask, concurrency, work, run)
            except* InvalidRun as invalid:
                run.loops.pop(concurrency, None)
                run.invalid[concurrency] = _first_message(invalid)
        await _refuse_cached(client, work, run)
        if not run.invalid:
            await _record_answers(client, model, answer_rounds, work, run)
            _refuse_one_token(work, run)


async def _timed_loop(
    client: CompletionClient, ask: Ask, concurrency: int, work: Work, run: ProcessRun
) -> None:
    await _warm_up(client, ask, concurrency, work)
    prompts = work.prompts[: requests_in_loop(concurrency)]
    for window in range(MAX_WINDOWS):
        try:
            traces = await client.closed_loop(ask, prompts, concurrency)
        except ClientSaturated:
            if window == MAX_WINDOWS - 1:
                raise
            continue
        run.loops[concurrency], run.dropped[concurrency] = traces, window
        run.model = traces[0].model
        if not is_burst_run(traces):
            return
    run.invalid[concurrency] = BURST


async def _warm_up(client: CompletionClient, ask: Ask, concurrency: int, work: Work) -> None:
    for _ in range(WARM_UP_ROUNDS):
        prompts = work.warm_up[:concurrency]
        await client.closed_loop(ask, prompts, concurrency, is_timed=False)


async def _open_loop(
    client: CompletionClient, ask: Ask, arm: OpenLoop, work: Work, run: ProcessRun
) -> None:
    try:
        await _warm_up(client, ask, arm.concurrency, work)
        served = await client.open_loop(ask, work.prompts, arm.arrivals_s, arm.deadline_s)
    except* InvalidRun as invalid:
        run.invalid[arm.concurrency] = _first_message(invalid)
    else:
        run.served = served
        if is_burst_run([trace for trace in served if trace is not None]):
            run.invalid[arm.concurrency] = BURST


async def _record_answers(
    client: CompletionClient, model: str, rounds: int, work: Work, run: ProcessRun
) -> None:
    ask = Ask(model, ANSWER_TOKENS)
    for question in work.questions:
        answers = [(await client.complete(ask, question)).pieces for _ in range(rounds)]
        run.answers.append(answers)


def _refuse_one_token(work: Work, run: ProcessRun) -> None:
    """What an engine says whose activations overflowed: NaN everywhere, read as token 0."""
    piece = only_piece(run.answers)
    if piece and run.condition in (MERGED, QUANTIZED):
        for concurrency in work.parameters.concurrency:
            run.invalid[concurrency] = (
                f"the engine answers {len(run.answers)} different prompts with {piece!r} again and "
                "again: its activations overflow (serve in bfloat16), or the model is broken"
            )


async def _refuse_cached(client: CompletionClient, work: Work, run: ProcessRun) -> None:
    share = await client.prefix_cache_share()
    if share is not None and share > MAX_CACHED_SHARE:
        for concurrency in work.parameters.concurrency:
            run.invalid[concurrency] = (
                f"the engine took {share:.0%} of the prompts' tokens from its prefix cache, which "
                "is to be off"
            )


def _refuse_faster_than_memory(condition: Condition, work: Work, run: ProcessRun) -> None:
    if work.parameters.accelerator == NO_ACCELERATOR:
        return  # nobody knows the bandwidth, and caches are large
    with nvml() as library:
        bandwidth = memory_bandwidth(library)
    devices = tensor_parallel_of(work.parameters.args)
    least_ms = fastest_token_ms(bytes_a_token(condition.model), bandwidth, devices)
    for concurrency, traces in run.loops.items():
        seen_ms = speed_of(traces).time_per_output_token_ms
        if least_ms and seen_ms and seen_ms < least_ms:
            run.invalid[concurrency] = (
                f"{seen_ms:.2f} ms a token is faster than the device can read the weights, which "
                f"takes {least_ms:.2f} ms: this is no measurement"
            )


def _first_message(group: BaseExceptionGroup[BaseException]) -> str:
    first = group.exceptions[0]
    return _first_message(first) if isinstance(first, BaseExceptionGroup) else str(first)


__all__ = ["BURST", "EngineDied", "ProcessRun", "Work", "measure", "requests_in_loop"]
