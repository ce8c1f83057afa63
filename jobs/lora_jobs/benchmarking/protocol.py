"""The benchmark: blocks of fresh engine processes in random order, until it is precise enough.

    prompts -> block 0: every condition -> block 1..n: base and what would serve, where the
    time holds it base a second time -> measurements, samples

A gate's limit is no input: sampling stops at the stated precision or at the time limit.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_api.gates import BASE, DYNAMIC
from lora_api.jobcontract import Progress, Reason
from lora_api.parameters import BenchmarkParameters
from lora_jobs.benchmarking.blocks import (
    AGAIN,
    block_order,
    blocks_that_fit,
    compared,
    holds_again,
    is_enough,
    served_of,
)
from lora_jobs.benchmarking.conditions import Condition, NotApplicable
from lora_jobs.benchmarking.engine import EngineDied
from lora_jobs.benchmarking.measuring import ProcessRun, Work, measure, requests_in_loop
from lora_jobs.benchmarking.prompts import SEED, Prompt, fixed_prompts
from lora_jobs.benchmarking.results import BenchmarkRun, intervals_of
from lora_jobs.context import ReportProgress
from lora_jobs.errors import Refused

QUESTIONS = 10
QUESTION_TOKENS = 24
ANSWER_ROUNDS = 2
"""How often the first process of what would serve is asked each question: do its answers repeat?"""

Measure = Callable[[Condition, int, int, Work, Path], ProcessRun]


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        precision: Half-width of the intervals to reach, a fraction.
        max_duration_seconds: What the whole benchmark may take; one block is always run.
    """

    precision: float
    max_duration_seconds: float


def benchmark(
    conditions: Sequence[Condition],
    parameters: BenchmarkParameters,
    limits: Limits,
    work: Path,
    progress: ReportProgress,
    measure: Measure = measure,
    clock: Callable[[], float] = time.monotonic,
) -> BenchmarkRun:
    """Measure all conditions.

    Args:
        conditions: What to measure, each once; their order does not matter.
        parameters: Engine, flags, workload.
        limits: When to stop.
        work: A folder for links and logs.
        progress: Told after each process.
        measure: Measures one condition in one process.
        clock: A monotonic clock.

    Raises:
        Refused: An engine cannot serve base, merged or quantized.
    """
    asked = _work(conditions, parameters)
    by_name = {condition.name: condition for condition in conditions}
    run = BenchmarkRun(asked, served=served_of(by_name))
    began, block, enough = clock(), 0, False
    while not enough:
        applicable = [c for c in by_name if c not in run.not_applicable]
        if block == 1:
            run.with_again = holds_again(
                applicable,
                clock() - began,
                _block_seconds(run, applicable),
                run.last_seconds(BASE),
                limits.max_duration_seconds,
            )
        order = block_order(applicable, block, SEED, run.with_again)
        left_seconds = limits.max_duration_seconds - (clock() - began)
        ahead = _processes_after(block, order, run, left_seconds)
        for index, name in enumerate(order):
            _report(progress, run, len(order) - index + ahead, f"{name}, block {block + 1}")
            folder = work / f"block{block}" / name
            folder.mkdir(parents=True)
            condition = by_name[BASE if name == AGAIN else name]
            _add(run, condition, block, asked, folder, measure, again=name == AGAIN)
        block += 1
        enough = is_enough(
            block,
            clock() - began,
            _block_seconds(run, order),
            limits.max_duration_seconds,
            list(intervals_of(run).values()),
            limits.precision,
        )
    _report(progress, run, 0, f"{block} blocks")
    return run


def _processes_after(
    block: int, order: Sequence[str], run: BenchmarkRun, left_seconds: float
) -> int:
    """An estimate of the processes after this block: as many blocks as fit, at least one."""
    repeated = len(compared(order)) + run.with_again
    seconds = _block_seconds(run, order)
    more = blocks_that_fit(left_seconds - seconds, seconds) if block else 1
    return repeated * more


def _block_seconds(run: BenchmarkRun, order: Sequence[str]) -> float:
    """What the next block will take, by the last time of each of its conditions."""
    again = run.last_seconds(BASE) if run.with_again else 0.0
    return sum(run.last_seconds(name) for name in compared(order)) + again


def _report(progress: ReportProgress, run: BenchmarkRun, ahead: int, message: str) -> None:
    done = len(run.processes)
    progress(Progress(done=done, total=done + ahead, unit="processes", message=message))


def _add(
    run: BenchmarkRun,
    condition: Condition,
    block: int,
    work: Work,
    folder: Path,
    measure: Measure,
    again: bool = False,
) -> None:
    """One process more; a dynamic adapter may be refused by the engine, the others may not."""
    first_served = condition.name == run.served and block == 0
    try:
        rounds = ANSWER_ROUNDS if first_served else 1
        process = measure(condition, block, rounds, work, folder)
    except NotApplicable as reason:
        run.not_applicable[condition.name] = str(reason)
    except EngineDied as reason:
        if condition.name != DYNAMIC:
            raise Refused(
                Reason.ENGINE_FAILED, f"{condition.name} cannot be measured: {reason}"
            ) from reason
        run.not_applicable[condition.name] = f"the engine refuses it: {reason}"
    else:
        run.processes.append(replace(process, again=again))


def _work(conditions: Sequence[Condition], parameters: BenchmarkParameters) -> Work:
    """The prompts, from the smallest vocabulary: the base's, if it is there."""
    lead = next((c for c in conditions if c.name == BASE), conditions[0]).model
    most = max(parameters.concurrency)
    count = most + max(requests_in_loop(c) for c in parameters.concurrency)
    prompts: list[Prompt] = fixed_prompts(lead, parameters.input_tokens, count)
    length = min(QUESTION_TOKENS, parameters.input_tokens)
    questions = fixed_prompts(lead, length, QUESTIONS, seed=SEED + 1)
    return Work(parameters, prompts[:most], prompts[most:], questions)
