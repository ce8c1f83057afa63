"""Blocks, and when they end, without processes and on a clock of the test's own."""

from dataclasses import replace
from pathlib import Path

import pytest

from lora_api.estimates import measured
from lora_api.gates import OUTPUT_TOKENS_PER_SECOND, TTFT_P50, judge
from lora_api.gatespec import Gates
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import Runtime
from lora_jobs.benchmarking.blocks import AGAIN
from lora_jobs.benchmarking.conditions import Condition
from lora_jobs.benchmarking.devicestate import DeviceState
from lora_jobs.benchmarking.engine import EngineDied
from lora_jobs.benchmarking.expectations import Expectations
from lora_jobs.benchmarking.measuring import ProcessRun, Work
from lora_jobs.benchmarking.metrics import RequestTrace, speed_of
from lora_jobs.benchmarking.protocol import Limits, Measure, benchmark
from lora_jobs.benchmarking.results import (
    BenchmarkRun,
    intervals_of,
    measurements_of,
    notes_of,
    samples_of,
)
from lora_jobs.intervals.blocks import block_ratio
from lora_jobs.reporting.claims import claims_of
from wordmodel import write_word_model

SECONDS_A_PROCESS = 10.0


class Lab:
    """Measures a condition in ten seconds of its own time; `noise` by block."""

    def __init__(self, folder: Path, noise: tuple[float, ...] = (1.0,)) -> None:
        self.now, self.noise, self.folder = 0.0, noise, folder
        self.asked: list[tuple[int, str, int]] = []
        self.open: list[str] = []

    def __call__(self, c: Condition, block: int, rounds: int, work: Work, _: Path) -> ProcessRun:
        if work.open_loop:
            self.open.append(c.name)
            self.now += SECONDS_A_PROCESS + work.open_loop.seconds
            assert len(work.prompts) == len(work.open_loop.arrivals_s)
            return ProcessRun(c.name, block, [], served=[None] * len(work.prompts))
        self.asked.append((block, c.name, rounds))
        self.now += SECONDS_A_PROCESS
        factor = self.noise[block % len(self.noise)] if c.name == "quantized" else 1.0
        arrivals = tuple((0.1 + 0.02 * i) * factor for i in range(8))
        traces = [RequestTrace(0.0, arrivals, output_tokens=8, prompt_tokens=4)] * 8
        return ProcessRun(c.name, block, [], seconds=SECONDS_A_PROCESS, loops={1: traces})

    def run(
        self,
        precision: float,
        max_duration_seconds: float,
        repeats_all: bool = False,
        measure: Measure | None = None,
    ) -> BenchmarkRun:
        model = write_word_model(self.folder / "model")
        names = ("base", "dynamic", "merged", "quantized")
        parameters = BenchmarkParameters(
            runtime=Runtime.TRANSFORMERS, image="", accelerator="nvidia.com/gpu", input_tokens=4,
            output_tokens=8, concurrency=[1], precision="5%",
        )  # fmt: skip
        return benchmark(
            [Condition(name, model) for name in names],
            parameters,
            Limits(precision, max_duration_seconds, repeats_all),
            self.folder / "work",
            lambda _: None,
            measure=measure or self,
            clock=lambda: self.now,
        )


def test_six_equal_blocks_are_precise_and_enough(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.run(precision=0.05, max_duration_seconds=3600)
    assert run.blocks == 6
    assert sorted(name for block, name, _ in lab.asked if block == 0) == [
        "base", "dynamic", "merged", "quantized",
    ]  # fmt: skip
    for later in range(1, 6):
        assert sorted(n for block, n, _ in lab.asked if block == later) == [
            "base", "base", "quantized",
        ]  # fmt: skip


def test_answers_are_asked_twice_of_the_first_quantized_process(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run(precision=0.05, max_duration_seconds=1)
    assert {(name, rounds) for _, name, rounds in lab.asked} == {
        ("base", 1), ("dynamic", 1), ("merged", 1), ("quantized", 2),
    }  # fmt: skip


def test_noise_costs_blocks_and_time_ends_them(tmp_path: Path) -> None:
    run = Lab(tmp_path, noise=(1.0, 1.3)).run(precision=0.05, max_duration_seconds=150)
    assert run.blocks == 6  # 40 s for the first, 20 s for each of five more
    notes = notes_of(run, 0.05, {"device": "x"})
    assert "NOT reached" in notes["precision"]


def test_the_reported_ratio_is_the_judged_one(tmp_path: Path) -> None:
    run = Lab(tmp_path, noise=(1.0, 1.2)).run(precision=0.05, max_duration_seconds=100)
    rows, ratios = measurements_of(run), intervals_of(run)
    for metric in (f"{TTFT_P50}@1", f"{OUTPUT_TOKENS_PER_SECOND}@1"):
        shown = float(rows[metric]["quantized"]) / float(rows[metric]["base"])
        assert abs(shown / ratios[metric].ratio - 1) < 0.001
        row = rows[f"{metric}:quantized/base"]
        assert row["blocks"] == str(run.blocks)
        assert float(row["lower"]) < float(row["value"]) < float(row["upper"])


def test_a_limit_in_a_metric_s_unit_is_judged_by_the_interval_of_the_number_itself(
    tmp_path: Path,
) -> None:
    run = Lab(tmp_path, noise=(1.0, 1.02)).run(precision=0.05, max_duration_seconds=190)
    row = measurements_of(run)["OutputTokensPerSecond@1"]
    values = [speed_of(p.loops[1]).output_tokens_per_second for p in run.of("quantized")]
    expected = block_ratio(values, [1.0] * 6).bounds
    assert expected is not None
    assert float(row["quantizedLower"]) == pytest.approx(expected[0])
    assert float(row["quantizedUpper"]) == pytest.approx(expected[1])
    middle = expected[0] * expected[1]
    for limit, verdict in ((middle**0.5 * 0.9, "Passed"), (middle**0.5, "Inconclusive")):
        gate = {"name": "own", "metric": "OutputTokensPerSecond", "min": f"{limit:.3f}"}
        gates = judge(Gates.model_validate({"custom": [gate]}), measurements_of(run)).gates
        assert gates[-1].verdict == verdict
    alone = measurements_of(Lab(tmp_path / "alone").run(0.05, 1))["OutputTokensPerSecond@1"]
    assert "quantizedLower" not in alone


def test_numbers_of_equal_blocks_are_within_their_own_interval(tmp_path: Path) -> None:
    rows = measurements_of(Lab(tmp_path, noise=(1.0123456,)).run(0.05, 190))
    for metric in ("TimeToFirstToken/p50@1", "TimePerOutputToken/p50@1"):
        assert measured(rows, metric, "quantized").blocks == 6


def test_blocks_that_ran_other_kernels_are_no_number(tmp_path: Path) -> None:
    lab = Lab(tmp_path)

    def measure(c: Condition, block: int, rounds: int, work: Work, folder: Path) -> ProcessRun:
        is_other = c.name == "quantized" and block == 3
        kernel = "MarlinLinearKernel" if not is_other else "ExllamaLinearKernel"
        return replace(lab(c, block, rounds, work, folder), kernels=(kernel,))

    run = lab.run(0.05, 3600, measure=measure)
    rows = measurements_of(run)
    assert "quantized" not in rows["OutputTokensPerSecond@1"]
    assert "base" in rows["OutputTokensPerSecond@1"]
    note = notes_of(run, 0.05, {"device": "x"})["invalid/quantized@1"]
    assert "block 4 (ExllamaLinearKernel) than in block 1 (MarlinLinearKernel)" in note
    assert judge(Gates(), rows).verdict == "Error"


def test_on_an_accelerator_main_memory_is_no_peak_memory(tmp_path: Path) -> None:
    assert "PeakMemoryBytes" not in measurements_of(Lab(tmp_path).run(0.05, 1))


def test_base_is_measured_twice_in_each_later_block_where_the_time_holds_six(
    tmp_path: Path,
) -> None:
    # 40 s for the first block and 30 s for each of five more.
    run = Lab(tmp_path).run(precision=0.05, max_duration_seconds=190)
    assert [sum(p.again for p in run.processes if p.block == b) for b in range(6)] == [
        0, 1, 1, 1, 1, 1,
    ]  # fmt: skip
    rows = measurements_of(run)
    floor = rows["TimeToFirstToken/p50@1:base/base"]
    assert (floor["value"], floor["blocks"]) == ("1.000000", "5")
    assert rows["TimeToFirstToken/p50@1:quantized/base"]["blocks"] == "6"
    assert notes_of(run, 0.05, {"device": "x"})["noiseFloor"].startswith("base against itself in 5")


def test_a_short_benchmark_leaves_the_second_base_out_and_says_so(tmp_path: Path) -> None:
    run = Lab(tmp_path).run(precision=0.05, max_duration_seconds=189)
    assert not any(p.again for p in run.processes)
    assert run.blocks == 6
    assert "base/base" not in str(measurements_of(run))
    assert "was not measured" in notes_of(run, 0.05, {"device": "x"})["noiseFloor"]


def test_the_second_base_shows_the_noise_of_restarts_and_is_no_base(tmp_path: Path) -> None:
    class Restless(Lab):
        def __call__(
            self, c: Condition, block: int, rounds: int, work: Work, folder: Path
        ) -> ProcessRun:
            run = super().__call__(c, block, rounds, work, folder)
            if folder.name == AGAIN:
                slow = [replace(t, arrivals_s=tuple(a * 1.5 for a in t.arrivals_s))
                        for t in run.loops[1]]  # fmt: skip
                run.loops[1] = slow
            return run

    rows = measurements_of(Restless(tmp_path).run(precision=0.05, max_duration_seconds=3600))
    assert rows["TimeToFirstToken/p50@1:base/base"]["value"] == "1.500000"
    assert rows["TimeToFirstToken/p50@1"]["base"] == "100.0"
    assert rows["TimeToFirstToken/p50@1:quantized/base"]["value"] == "1.000000"


def test_where_the_time_holds_it_every_condition_has_an_open_loop_after_the_blocks(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path)
    run = lab.run(precision=0.05, max_duration_seconds=300)
    assert sorted(lab.open) == ["base", "dynamic", "merged", "quantized"]
    assert run.open_loop is not None
    # Eight requests at a time, each 0.24 s.
    assert run.open_loop.rate_per_second == pytest.approx(0.7 * 8 / 0.24)
    assert notes_of(run, 0.05, {"device": "x"})["openLoop"].endswith("to each condition")
    assert lab.now <= 300


def test_what_the_open_loop_needs_is_no_time_for_blocks(tmp_path: Path) -> None:
    lab = Lab(tmp_path, noise=(1.0, 1.3))
    run = lab.run(precision=0.001, max_duration_seconds=600)
    assert len(lab.open) == 4
    assert run.blocks >= 6
    assert lab.now <= 600


def test_a_short_benchmark_has_no_open_loop_and_says_why(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.run(precision=0.05, max_duration_seconds=190)
    assert lab.open == []
    said = notes_of(run, 0.05, {"device": "x"})["openLoop"]
    assert said.startswith("not measured: benchmark.maxDuration does not hold it")
    assert samples_of(run, Expectations(artifact=""), {})["openLoop"]["skipped"] in said


def test_an_engine_that_dies_in_the_open_loop_leaves_what_the_blocks_measured(
    tmp_path: Path,
) -> None:
    class Fragile(Lab):
        def __call__(
            self, c: Condition, block: int, rounds: int, work: Work, folder: Path
        ) -> ProcessRun:
            if work.open_loop and c.name == "quantized":
                raise EngineDied("out of memory")
            return super().__call__(c, block, rounds, work, folder)

    run = Fragile(tmp_path).run(precision=0.05, max_duration_seconds=3600)
    assert measurements_of(run)["TimeToFirstToken/p50@1:quantized/base"]["blocks"] == "6"
    dead = [p.invalid for p in run.open_processes if p.condition == "quantized"]
    assert dead == [{1: "out of memory"}]


def test_where_it_is_asked_every_block_measures_every_condition_and_claims_are_decided(
    tmp_path: Path,
) -> None:
    class Slow(Lab):
        def __call__(
            self, c: Condition, block: int, rounds: int, work: Work, folder: Path
        ) -> ProcessRun:
            run = super().__call__(c, block, rounds, work, folder)
            if c.name == "dynamic" and run.loops:
                run.loops[1] = [
                    replace(t, arrivals_s=tuple(a * 1.5 for a in t.arrivals_s))
                    for t in run.loops[1]
                ]
            return run

    def claims(run: BenchmarkRun) -> dict[str, tuple[str, int]]:
        found = claims_of(samples_of(run, Expectations(artifact=""), {}))
        return {claim.name: (claim.verdict, claim.blocks) for claim in found}

    asked = Slow(tmp_path / "asked").run(0.05, 3600, repeats_all=True)
    assert [len(asked.of(c)) for c in ("base", "dynamic", "merged", "quantized")] == [6] * 4
    assert claims(asked) == {
        "mergedIsAsFast": ("Supported", 6),
        "unmergedIsSlower": ("Supported", 6),
    }
    usual = Slow(tmp_path / "usual").run(0.05, 3600)
    assert claims(usual) == {
        "mergedIsAsFast": ("Undecided", 1),
        "unmergedIsSlower": ("Undecided", 1),
    }


class Shared(Lab):
    """A machine that somebody else uses while some processes are measured."""

    busy: frozenset[int] = frozenset()
    """Which of all processes, in the order in which they are measured."""

    def __call__(
        self, c: Condition, block: int, rounds: int, work: Work, folder: Path
    ) -> ProcessRun:
        is_busy = len(self.asked) in self.busy
        run = super().__call__(c, block, rounds, work, folder)
        return replace(run, state=DeviceState(1.0, 0.0, 0.5 if is_busy else 0.0))


def test_a_block_that_others_disturbed_is_measured_anew_and_kept_out_of_every_number(
    tmp_path: Path,
) -> None:
    lab = Shared(tmp_path)
    lab.busy = frozenset({5})
    run = lab.run(precision=0.05, max_duration_seconds=3600)
    assert [block for block, _, _ in lab.asked].count(1) == 6
    assert (run.blocks, run.repeated_blocks, len(run.dropped)) == (6, 1, 3)
    rows = measurements_of(run)
    assert rows["TimeToFirstToken/p50@1:quantized/base"]["blocks"] == "6"
    assert notes_of(run, 0.05, {"device": "x"})["disturbed"] == "1 blocks were measured anew"
    states = samples_of(run, Expectations(artifact=""), {})["states"]
    assert [s["block"] for s in states if s["dropped"]] == [1, 1, 1]


def test_a_machine_that_is_never_quiet_costs_two_blocks_and_is_flagged(tmp_path: Path) -> None:
    lab = Shared(tmp_path)
    lab.busy = frozenset(range(1000))
    run = lab.run(precision=0.05, max_duration_seconds=3600)
    assert (run.blocks, run.repeated_blocks) == (6, 2)
    said = notes_of(run, 0.05, {"device": "x"})["disturbed"]
    assert "block 1: other processes used 50% of the cores' time" in said


def test_no_block_is_measured_anew_where_a_judgement_s_blocks_would_not_fit(
    tmp_path: Path,
) -> None:
    lab = Shared(tmp_path)
    lab.busy = frozenset(range(1000))
    run = lab.run(precision=0.05, max_duration_seconds=190)
    assert (run.blocks, run.repeated_blocks) == (6, 0)
