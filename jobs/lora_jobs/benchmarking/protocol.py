"""The benchmark: blocks of fresh engine processes in random order, until it is precise enough.

    prompts -> block 0: every condition -> block 1..n: base and what would serve, where the time
    holds it base a second time -> where the time holds it, the open loop: every condition once more
    -> measurements, samples

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
    MAX_REPEATED_BLOCKS,
    block_order,
    blocks_that_fit,
    compared,
    holds_again,
    holds_open_loop,
    is_enough,
    may_repeat,
    served_of,
)
from lora_jobs.benchmarking.conditions import Condition, NotApplicable
from lora_jobs.benchmarking.engine import EngineDied
from lora_jobs.benchmarking.measuring import ProcessRun, Work, measure, requests_in_loop
from lora_jobs.benchmarking.openloop import OpenLoop, open_loop
from lora_jobs.benchmarking.prompts import SEED, Prompt, fixed_prompts
from lora_jobs.benchmarking.results import BenchmarkRun, intervals_of, throughput_of
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
        repeats_all: Every block measures every condition, which decides the claims of the report.
    """

    precision: float
    max_duration_seconds: float
    repeats_all: bool = False


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
    run = BenchmarkRun(asked, served=served_of(by_name), repeats_all=limits.repeats_all)
    began, block, enough, until = clock(), 0, False, limits.max_duration_seconds
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
            until -= _kept_for_open_loop(run, applicable, clock() - began, until)
        order = block_order(applicable, block, SEED, run.with_again, run.repeats_all)
        left_seconds = until - (clock() - began)
        ahead = _processes_after(block, order, run, left_seconds)
        for index, name in enumerate(order):
            _report(progress, run, len(order) - index + ahead, f"{name}, block {block + 1}")
            folder = work / f"block{block}-{run.repeated_blocks}" / name
            folder.mkdir(parents=True)
            condition = by_name[BASE if name == AGAIN else name]
            _add(run, condition, block, asked, folder, measure, again=name == AGAIN)
        if _is_repeated(run, block, order, until - (clock() - began)):
            run.drop_block(block)
            continue
        block += 1
        enough = is_enough(
            block,
            clock() - began,
            _block_seconds(run, order),
            until,
            list(intervals_of(run).values()),
            limits.precision,
        )
    if until < limits.max_duration_seconds:
        _run_open_loop(run, by_name, work, progress, measure)
    _report(progress, run, 0, f"{block} blocks")
    return run


def _is_repeated(run: BenchmarkRun, block: int, order: Sequence[str], left_seconds: float) -> bool:
    """Whether a block is thrown away, for the machine did something else meanwhile.

    The first is kept, since every condition is in it. No measured time plays a part.
    """
    if block == 0 or run.repeated_blocks >= MAX_REPEATED_BLOCKS or not run.disturbed(block):
        return False
    return may_repeat(block, left_seconds, _block_seconds(run, order))


def _kept_for_open_loop(
    run: BenchmarkRun, conditions: Sequence[str], elapsed_seconds: float, until_seconds: float
) -> float:
    """Seconds that the blocks leave to the open loop; 0 when there is none, and why is noted."""
    arm = _open_loop(run)
    if arm is None:
        return 0.0
    seconds = sum(run.last_seconds(c) + arm.seconds for c in conditions)
    block_seconds = _block_seconds(run, conditions)
    if holds_open_loop(conditions, elapsed_seconds, block_seconds, seconds, until_seconds):
        return seconds
    run.open_loop_skipped = "benchmark.maxDuration does not hold it after the blocks of a judgement"
    return 0.0


def _open_loop(run: BenchmarkRun) -> OpenLoop | None:
    """The arm for base's throughput so far; None, and why is noted, when there is none."""
    concurrency = max(run.parameters.concurrency)
    throughput = throughput_of(run, BASE, concurrency)
    if throughput is None:
        run.open_loop_skipped = "its rate comes from base's throughput, which was not measured"
        return None
    arm = open_loop(throughput, run.parameters.output_tokens, concurrency, SEED)
    run.open_loop_skipped = "" if arm else "base answers too few requests in a minute for a queue"
    return arm


def _run_open_loop(
    run: BenchmarkRun,
    by_name: dict[str, Condition],
    work: Path,
    progress: ReportProgress,
    measure: Measure,
) -> None:
    run.open_loop = arm = _open_loop(run)
    if arm is None:
        return
    lead, parameters = _lead(list(by_name.values())).model, run.parameters
    prompts = fixed_prompts(lead, parameters.input_tokens, len(arm.arrivals_s), seed=SEED + 2)
    asked = replace(run.work, prompts=prompts, open_loop=arm)
    order = block_order([c for c in by_name if c not in run.not_applicable], 0, SEED + 2)
    for index, name in enumerate(order):
        _report(progress, run, len(order) - index, f"{name}, open loop")
        folder = work / "open-loop" / name
        folder.mkdir(parents=True)
        try:
            process = measure(by_name[name], run.blocks, 0, asked, folder)
        except (NotApplicable, EngineDied) as reason:
            # Nothing is judged by it: what the blocks measured stays.
            invalid = {arm.concurrency: str(reason)}
            process = ProcessRun(name, run.blocks, [], invalid=invalid)
        run.open_processes.append(process)


def _processes_after(
    block: int, order: Sequence[str], run: BenchmarkRun, left_seconds: float
) -> int:
    """An estimate of the processes after this block: as many blocks as fit, at least one."""
    repeated = len(compared(order, run.repeats_all)) + run.with_again
    seconds = _block_seconds(run, order)
    more = blocks_that_fit(left_seconds - seconds, seconds) if block else 1
    return repeated * more


def _block_seconds(run: BenchmarkRun, order: Sequence[str]) -> float:
    """What the next block will take, by the last time of each of its conditions."""
    again = run.last_seconds(BASE) if run.with_again else 0.0
    return sum(run.last_seconds(name) for name in compared(order, run.repeats_all)) + again


def _report(progress: ReportProgress, run: BenchmarkRun, ahead: int, message: str) -> None:
    done = len(run.processes) + len(run.open_processes)
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
        _refuse_other_kernels(process, run)
        run.processes.append(replace(process, again=again))


def _refuse_other_kernels(process: ProcessRun, run: BenchmarkRun) -> None:
    """Blocks of a condition that ran other kernels are of two engines, and have no mean."""
    earlier = run.of(process.condition)
    if earlier and earlier[0].kernels != process.kernels:
        before, now = (", ".join(p.kernels) or "none" for p in (earlier[0], process))
        for concurrency in run.parameters.concurrency:
            process.invalid[concurrency] = (
                f"the engine chose other kernels in block {process.block + 1} ({now}) than in "
                f"block {earlier[0].block + 1} ({before}); pin them with serving.args"
            )


def _work(conditions: Sequence[Condition], parameters: BenchmarkParameters) -> Work:
    """The prompts, from the smallest vocabulary: the base's, if it is there."""
    lead = _lead(conditions).model
    most = max(parameters.concurrency)
    count = most + max(requests_in_loop(c) for c in parameters.concurrency)
    prompts: list[Prompt] = fixed_prompts(lead, parameters.input_tokens, count)
    length = min(QUESTION_TOKENS, parameters.input_tokens)
    questions = fixed_prompts(lead, length, QUESTIONS, seed=SEED + 1)
    return Work(parameters, prompts[:most], prompts[most:], questions)


def _lead(conditions: Sequence[Condition]) -> Condition:
    return next((c for c in conditions if c.name == BASE), conditions[0])
