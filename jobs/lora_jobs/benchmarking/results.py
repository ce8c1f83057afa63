"""From processes to what is kept: measurements, notes, samples, expectations. Pure.

A number is missing when one of its runs was invalid: half of an experiment is no measurement, and
gates treat what is missing as an Error.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_api.estimates import BLOCKS, LOWER, MIN_BLOCKS, UPPER, bounds_of, comparison
from lora_api.gates import (
    BASE,
    CONDITIONS,
    DYNAMIC,
    OUTPUT_TOKENS_PER_SECOND,
    PEAK_MEMORY_BYTES,
    QUANTIZED,
    TPOT_P50,
    TTFT_P50,
    Measurements,
    at_concurrency,
)
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import NO_ACCELERATOR
from lora_jobs.benchmarking.devicestate import DeviceState
from lora_jobs.benchmarking.expectations import Expectation, Expectations, expectation_of
from lora_jobs.benchmarking.measuring import ProcessRun, Work
from lora_jobs.benchmarking.metrics import (
    RequestTrace,
    Speed,
    decimal_text,
    geometric_mean,
    speed_of,
)
from lora_jobs.benchmarking.openloop import OpenLoop
from lora_jobs.benchmarking.prompts import prompts_hash
from lora_jobs.intervals.blocks import BlockRatio, block_ratio
from lora_jobs.intervals.rows import over_blocks

SAMPLES_SCHEMA = 3
INACTIVE_ADAPTER = "the engine answered as the base without the adapter: it does not apply it"


@dataclass
class BenchmarkRun:
    """All that was measured.

    Attributes:
        work: What every process was asked.
        not_applicable: Why a condition was not measured.
        with_again: Whether later blocks measure base twice.
        served: The condition that would serve, which is compared with base.
        repeats_all: Whether later blocks measure every condition.
        dropped: Processes of blocks that were measured anew.
        open_loop: What was asked after the blocks, if it was.
        open_processes: What came of it, one process a condition.
        open_loop_skipped: Why it was not.
    """

    work: Work
    processes: list[ProcessRun] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)
    with_again: bool = False
    served: str = QUANTIZED
    repeats_all: bool = False
    dropped: list[ProcessRun] = field(default_factory=list)
    repeated_blocks: int = 0
    open_loop: OpenLoop | None = None
    open_processes: list[ProcessRun] = field(default_factory=list)
    open_loop_skipped: str = ""

    @property
    def parameters(self) -> BenchmarkParameters:
        """Engine, flags and workload."""
        return self.work.parameters

    def of(self, condition: str) -> list[ProcessRun]:
        """The processes of one condition, in the order of their blocks, one a block."""
        return [p for p in self.processes if p.condition == condition and not p.again]

    @property
    def base_twice(self) -> tuple[list[ProcessRun], list[ProcessRun]]:
        """Base and base again, in the blocks that have both."""
        again = {p.block: p for p in self.processes if p.again}
        return [p for p in self.of(BASE) if p.block in again], [again[b] for b in sorted(again)]

    def last_seconds(self, condition: str) -> float:
        """How long the last process of a condition took; 0 before there is one."""
        return next((p.seconds for p in reversed(self.of(condition))), 0.0)

    def disturbed(self, block: int) -> list[str]:
        """What disturbed the processes of a block."""
        states = [p.state for p in self.processes if p.block == block and p.state]
        return [state.disturbed for state in states if state.disturbed]

    def drop_block(self, block: int) -> None:
        """Throw a block away, to measure it anew."""
        self.dropped += [p for p in self.processes if p.block == block]
        self.processes = [p for p in self.processes if p.block != block]
        self.repeated_blocks += 1

    @property
    def blocks(self) -> int:
        """Finished blocks."""
        return len({p.block for p in self.processes})


def measurements_of(run: BenchmarkRun) -> Measurements:
    """Rows by metric and condition, four significant digits; and what would serve against base.

    Peak memory is of the engine's processes in the machine's main memory; on an accelerator that
    says nothing of the device, so there is no such row.
    """
    rows: Measurements = {}
    for condition in _measured_conditions(run):
        for concurrency in run.parameters.concurrency:
            for metric, values in _values(run.of(condition), concurrency).items():
                row = rows.setdefault(at_concurrency(metric, concurrency), {})
                row[condition] = decimal_text(geometric_mean(values))
                if condition == run.served:
                    row |= _with_bounds(condition, row[condition], values)
        peaks = [p.peak_memory_bytes for p in run.of(condition)]
        if run.parameters.accelerator == NO_ACCELERATOR and min(peaks) > 0:
            rows.setdefault(PEAK_MEMORY_BYTES, {})[condition] = str(max(peaks))
    for metric, found in intervals_of(run).items():
        if compared := over_blocks(found):
            rows[comparison(metric, run.served, BASE)] = compared
    for metric, found in noise_floor_of(run).items():
        if compared := over_blocks(found):
            rows[comparison(metric, BASE, BASE)] = compared
    return rows


def _with_bounds(condition: str, shown: str, values: Sequence[float]) -> dict[str, str]:
    """The interval of a number over blocks, for gates that have a limit in its unit.

    Args:
        condition: Whose number it is.
        shown: The number as it is reported, rounded; the interval is made to hold it.
        values: One a block.
    """
    found = over_blocks(block_ratio(values, [1.0] * len(values))) or {}
    if LOWER not in found:
        return {}
    lower, upper = bounds_of(condition)
    return {
        lower: min(found[LOWER], shown, key=float),
        upper: max(found[UPPER], shown, key=float),
        BLOCKS: found[BLOCKS],
    }


def intervals_of(run: BenchmarkRun) -> dict[str, BlockRatio]:
    """What would serve against base for every timing metric, over the blocks that have both."""
    return _ratios(run, run.of(run.served), run.of(BASE))


def noise_floor_of(run: BenchmarkRun) -> dict[str, BlockRatio]:
    """Base against itself for every timing metric: what differs less than that is noise."""
    first, second = run.base_twice
    return _ratios(run, second, first)


def _ratios(
    run: BenchmarkRun, one: Sequence[ProcessRun], other: Sequence[ProcessRun]
) -> dict[str, BlockRatio]:
    found = {}
    for concurrency in run.parameters.concurrency:
        values, against = _values(one, concurrency), _values(other, concurrency)
        for metric in sorted(values.keys() & against.keys()):
            pairs = min(len(values[metric]), len(against[metric]))
            ratio = block_ratio(values[metric][:pairs], against[metric][:pairs])
            found[at_concurrency(metric, concurrency)] = ratio
    return found


def notes_of(run: BenchmarkRun, precision: float, facts: Mapping[str, str]) -> dict[str, str]:
    """Short facts for people: what is missing and why, on what, and how precisely."""
    notes = {f"notApplicable/{c}": reason for c, reason in run.not_applicable.items()}
    if _adapter_is_inactive(run):
        notes[f"notApplicable/{DYNAMIC}"] = INACTIVE_ADAPTER
    for process in run.processes:
        for concurrency, reason in process.invalid.items():
            notes[f"invalid/{process.condition}@{concurrency}"] = reason
    notes["device"] = facts["device"]
    notes["engine"] = facts.get("engine", "")
    notes["precision"] = _precision_note(run, precision)
    notes["noiseFloor"] = _noise_note(run)
    notes["disturbed"] = _disturbed_note(run)
    notes["openLoop"] = _open_loop_note(run)
    notes["startSeconds"] = ", ".join(
        f"{c} {max(p.start_seconds for p in run.of(c)):.0f}" for c in _conditions(run)
    )
    return {name: note[:500] for name, note in notes.items() if note}


def expectations_of(run: BenchmarkRun, artifact: str) -> Expectations:
    """The answers of what would serve that came out the same each time."""
    answers = _answers(run, run.served)
    others = {c: _answers(run, c) for c in _conditions(run) if c != run.served}
    kept: list[Expectation] = []
    for index, question in enumerate(run.work.questions if answers else ()):
        said = {c: a[index][0] for c, a in others.items() if a}
        found = expectation_of(question.text, question.token_ids, answers[index], said)
        if found:
            kept.append(found)
    compared = [condition for condition, said in others.items() if said]
    return Expectations(artifact=artifact, compared_with=compared, prompts=kept)


def samples_of(
    run: BenchmarkRun, expectations: Expectations, facts: Mapping[str, str]
) -> dict[str, Any]:
    """The raw record: every arrival of every timed request, in whole microseconds."""
    return {
        "schema": SAMPLES_SCHEMA,
        "workload": run.parameters.to_json(),
        "prompts": prompts_hash([*run.work.prompts, *run.work.questions]),
        "environment": dict(facts),
        "notApplicable": run.not_applicable,
        "processes": [_process_document(process) for process in run.processes],
        "states": [
            *(_state_document(p, p.state, is_dropped=False) for p in run.processes if p.state),
            *(_state_document(p, p.state, is_dropped=True) for p in run.dropped if p.state),
        ],
        "openLoop": _open_loop_document(run),
        "expectations": expectations.to_json(),
    }


def _process_document(process: ProcessRun) -> dict[str, Any]:
    return {
        "condition": process.condition,
        "block": process.block,
        "again": process.again,
        "argv": process.argv,
        "model": process.model,
        "kernels": list(process.kernels),
        "startMilliseconds": round(process.start_seconds * 1000),
        "peakMemoryBytes": process.peak_memory_bytes,
        "droppedWindows": {str(c): dropped for c, dropped in process.dropped.items()},
        "invalid": {str(c): reason for c, reason in process.invalid.items()},
        "loops": {
            str(concurrency): [_trace_document(t, traces[0].sent_s) for t in traces]
            for concurrency, traces in process.loops.items()
        },
    }


def _state_document(process: ProcessRun, state: DeviceState, is_dropped: bool) -> dict[str, Any]:
    return {
        "block": process.block,
        "condition": process.condition,
        "again": process.again,
        "loadAverage": f"{state.load_average:.2f}",
        "stealShare": f"{state.steal_share:.4f}",
        "foreignShare": f"{state.foreign_share:.4f}",
        "accelerators": list(map(str, state.accelerators)),
        "disturbed": state.disturbed,
        "dropped": is_dropped,
    }


def _disturbed_note(run: BenchmarkRun) -> str:
    """Which blocks were measured while the machine did something else; empty when none was."""
    blocks = sorted({p.block for p in run.processes})
    kept = [f"block {b + 1}: {found[0]}" for b in blocks if (found := run.disturbed(b))]
    anew = f"{run.repeated_blocks} blocks were measured anew" if run.repeated_blocks else ""
    return "; ".join(filter(None, [anew, *kept]))


def _open_loop_document(run: BenchmarkRun) -> dict[str, Any]:
    """Every arrival of the open loop from its start, with what came of it; null: cut off."""
    arm = run.open_loop
    if arm is None:
        return {"skipped": run.open_loop_skipped}
    return {
        "ratePerSecond": decimal_text(arm.rate_per_second),
        "concurrency": arm.concurrency,
        "arrivalsMicroseconds": [round(a * 1e6) for a in arm.arrivals_s],
        "deadlineMicroseconds": round(arm.deadline_s * 1e6),
        "processes": [
            {
                "condition": process.condition,
                "invalid": process.invalid.get(arm.concurrency, ""),
                "served": [
                    trace and _trace_document(trace, trace.sent_s - due)
                    for trace, due in zip(process.served, arm.arrivals_s, strict=False)
                ],
            }
            for process in run.open_processes
        ],
    }


def _trace_document(trace: RequestTrace, start_s: float) -> dict[str, Any]:
    return {
        "sentMicroseconds": round((trace.sent_s - start_s) * 1e6),
        "arrivalsMicroseconds": [round((a - start_s) * 1e6) for a in trace.arrivals_s],
        "promptTokens": trace.prompt_tokens,
        "outputTokens": trace.output_tokens,
    }


def throughput_of(run: BenchmarkRun, condition: str, concurrency: int) -> float | None:
    """Output tokens per second in the closed loop over all blocks; None when not measured."""
    values = _values(run.of(condition), concurrency).get(OUTPUT_TOKENS_PER_SECOND)
    return geometric_mean(values) if values else None


def _conditions(run: BenchmarkRun) -> Iterator[str]:
    return (c for c in CONDITIONS if run.of(c))


def _measured_conditions(run: BenchmarkRun) -> Iterator[str]:
    inactive = _adapter_is_inactive(run)
    return (c for c in _conditions(run) if not (inactive and c == DYNAMIC))


def _values(processes: Sequence[ProcessRun], concurrency: int) -> dict[str, list[float]]:
    """By metric one value a process; nothing at all when any of them was invalid."""
    if any(concurrency in p.invalid or concurrency not in p.loops for p in processes):
        return {}
    speeds: Sequence[Speed] = [speed_of(p.loops[concurrency]) for p in processes]
    values = {
        TTFT_P50: [s.time_to_first_token_ms for s in speeds],
        OUTPUT_TOKENS_PER_SECOND: [s.output_tokens_per_second for s in speeds],
        TPOT_P50: [t for t in (s.time_per_output_token_ms for s in speeds) if t is not None],
    }
    return {metric: found for metric, found in values.items() if found}


def _answers(run: BenchmarkRun, condition: str) -> list[list[tuple[str, ...]]]:
    """By question, the answers of all processes of a condition."""
    asked = [p.answers for p in run.of(condition) if p.answers]
    return [[a for answers in same for a in answers] for same in zip(*asked, strict=True)]


def _adapter_is_inactive(run: BenchmarkRun) -> bool:
    dynamic, base = _answers(run, DYNAMIC), _answers(run, BASE)
    return bool(dynamic) and [a[0] for a in dynamic] == [a[0] for a in base]


def _precision_note(run: BenchmarkRun, precision: float) -> str:
    intervals = intervals_of(run)
    blocks = "1 block" if run.blocks == 1 else f"{run.blocks} blocks"
    if not intervals:
        return f"{blocks}; base and {run.served} were not both measured"
    key, widest = max(intervals.items(), key=lambda found: found[1].half_width)
    if widest.blocks < MIN_BLOCKS:
        return (
            f"{blocks} of the {MIN_BLOCKS} that a judgement needs; "
            "a longer benchmark.maxDuration gives more"
        )
    reached = "reached" if widest.half_width <= precision else "NOT reached"
    return (
        f"{blocks}: {run.served} against base within +-{widest.half_width:.1%} (95 %, {key}); "
        f"precision {precision:.0%} {reached}"
    )


def _noise_note(run: BenchmarkRun) -> str:
    """How far base is from itself, or why nobody knows."""
    floor = noise_floor_of(run)
    if not floor:
        return (
            "base was not measured against itself: benchmark.maxDuration does not hold the blocks "
            "of a judgement with it"
        )
    key, widest = max(floor.items(), key=lambda found: found[1].half_width)
    if widest.blocks < 2:
        return "base was measured against itself in 1 block: no interval"
    return f"base against itself in {widest.blocks} blocks: +-{widest.half_width:.1%} ({key})"


def _open_loop_note(run: BenchmarkRun) -> str:
    if run.open_loop is None:
        why = run.open_loop_skipped
        return f"not measured: {why}" if why else ""
    arm = run.open_loop
    return f"{len(arm.arrivals_s)} requests in {arm.seconds:.0f} s to each condition"
