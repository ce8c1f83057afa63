"""What the speed gates say on a real engine where the truth is known: `make bench-verdict`.

    python bench/verdict/bench_verdict.py [--runs 20] [--slowed 5] [--max-duration 5m] [--share 1]

A/A: both arms are the same model, so that a Failed is false. Slowed: the second arm has more
layers, identity ones, so that it says the same and is truly slower; anything but Failed is missed.
Each run is a benchmark as a stage does it, with fresh engine processes in random order.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

import tiny_model
from lora_api.estimates import MIN_BLOCKS
from lora_api.gates import BASE, QUANTIZED, GateResult, judge
from lora_api.gatespec import Gates
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import NO_ACCELERATOR, Runtime
from lora_api.times import seconds_of
from lora_jobs.benchmarking.conditions import Condition
from lora_jobs.benchmarking.environment import environment
from lora_jobs.benchmarking.metrics import speed_of
from lora_jobs.benchmarking.protocol import Limits, benchmark
from lora_jobs.benchmarking.results import BenchmarkRun, measurements_of
from lora_jobs.intervals.blocks import block_ratio

SPEED_GATES = ("decodeSpeed", "firstToken")


@dataclass(frozen=True)
class Judged:
    """One run: what each speed gate said, and how precise time per token was block by block."""

    gates: list[GateResult]
    blocks: int
    seconds: float
    half_widths: list[float]

    def verdict(self, gate: str) -> str:
        """What one gate said."""
        return next(g.verdict.value for g in self.gates if g.name == gate)

    def told(self, gate: str) -> str:
        """What one gate saw and said, for people."""
        found = next(g for g in self.gates if g.name == gate)
        return f"{found.verdict.value} {found.observed} {found.interval}".strip()


def slowed(base: Path, output: Path, share: float) -> Path:
    """A model that says what `base` says with more layers: what each adds is zero."""
    config = json.loads((base / "config.json").read_text())
    layers = int(config["num_hidden_layers"])
    more = max(1, round(share * layers))
    tensors = load_file(base / "model.safetensors")
    last = f"model.layers.{layers - 1}."
    for number in range(layers, layers + more):
        for name in [n for n in tensors if n.startswith(last)]:
            silent = name.endswith(("o_proj.weight", "down_proj.weight"))
            copy = tensors[name] * 0 if silent else tensors[name].clone()
            tensors[name.replace(last, f"model.layers.{number}.")] = copy
    output.mkdir()
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (output / file.name).write_bytes(file.read_bytes())
    config["num_hidden_layers"] = layers + more
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    return output


def one_run(base: Path, other: Path, limits: Limits, work: Path) -> Judged:
    """Benchmark and judge as the chain does, with the default limits of the speed gates."""
    parameters = BenchmarkParameters(
        runtime=Runtime.TRANSFORMERS, image="", args=[], accelerator=NO_ACCELERATOR,
        input_tokens=64, output_tokens=32, concurrency=[1], precision=f"{limits.precision:.0%}",
    )  # fmt: skip
    began = time.monotonic()
    conditions = [Condition(BASE, base), Condition(QUANTIZED, other)]
    run = benchmark(conditions, parameters, limits, work, lambda progress: None)
    found = judge(Gates(), measurements_of(run)).gates
    gates = [g for g in found if g.name in SPEED_GATES]
    seconds = time.monotonic() - began
    return Judged(gates, run.blocks, seconds, list(_half_widths(run)))


def _half_widths(run: BenchmarkRun) -> Iterator[float]:
    """Of the time per output token after 2, 3, ... blocks."""
    pairs = list(zip(*(_tokens_ms(run, c) for c in (QUANTIZED, BASE)), strict=True))
    for blocks in range(2, len(pairs) + 1):
        other, base = zip(*pairs[:blocks], strict=True)
        yield block_ratio(other, base).half_width


def _tokens_ms(run: BenchmarkRun, condition: str) -> list[float]:
    speeds = (speed_of(process.loops[1]) for process in run.of(condition))
    return [s.time_per_output_token_ms for s in speeds if s.time_per_output_token_ms]


def report(name: str, runs: Sequence[Judged]) -> dict[str, Any]:
    """Print what came of one kind of runs."""
    print(f"\n{name}: {len(runs)} runs")
    counts = {gate: Counter(r.verdict(gate) for r in runs) for gate in SPEED_GATES}
    for gate, found in counts.items():
        print(f"  {gate}: " + ", ".join(f"{v} {n}" for v, n in sorted(found.items())))
    print("| blocks | seconds | time per token within (median; worst) |\n| --- | --- | --- |")
    for blocks in (MIN_BLOCKS, 8, 10, 12, 16, 20):
        widths = sorted(r.half_widths[blocks - 2] for r in runs if len(r.half_widths) > blocks - 2)
        if widths:
            seconds = sum(r.seconds / r.blocks for r in runs) / len(runs) * blocks
            middle, worst = widths[len(widths) // 2], widths[-1]
            print(f"| {blocks} | {seconds:.0f} | {middle:.1%}; {worst:.1%} ({len(widths)} runs) |")
    return {gate: dict(found) for gate, found in counts.items()}


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="with the same model in both arms")
    parser.add_argument("--slowed", type=int, default=5, help="with a truly slower second arm")
    parser.add_argument("--share", type=float, default=1.0, help="of layers that it has more")
    parser.add_argument("--max-duration", default="5m", help="of one benchmark")
    parser.add_argument("--precision", type=float, default=0.05, help="half-width that ends it")
    chosen = parser.parse_args()
    limits = Limits(chosen.precision, seconds_of(chosen.max_duration))
    base = tiny_model.ensure().base
    facts = environment(Runtime.TRANSFORMERS, NO_ACCELERATOR, "")
    print(f"on {facts['device']}, {limits.max_duration_seconds:.0f} s a run at most")
    with tempfile.TemporaryDirectory(prefix="bench-verdict-") as folder:
        work = Path(folder)
        slow = slowed(base, work / "slowed", chosen.share)
        kinds = [("A/A", base)] * chosen.runs + [("slowed", slow)] * chosen.slowed
        random.Random(0).shuffle(kinds)  # a machine that changes favours neither kind
        judged: dict[str, list[Judged]] = {"A/A": [], "slowed": []}
        for number, (name, other) in enumerate(kinds):
            found = one_run(base, other, limits, work / f"run{number}")
            judged[name].append(found)
            told = "; ".join(f"{gate} {found.told(gate)}" for gate in SPEED_GATES)
            print(f"{number + 1}/{len(kinds)} {name}: {found.blocks} blocks, "
                  f"{found.seconds:.0f} s, {told}", flush=True)  # fmt: skip
    for name, runs in judged.items():
        if runs:
            report(name, runs)


if __name__ == "__main__":
    main()
