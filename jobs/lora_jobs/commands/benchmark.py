"""`lora-jobs benchmark`: speed and memory of up to four conditions, by hand."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_api.runtimes import NO_ACCELERATOR, Runtime

if TYPE_CHECKING:
    from lora_jobs.benchmarking.conditions import Condition


def benchmark(
    output: Annotated[Path, typer.Option(help="Folder for benchmark.json; empty or missing.")],
    base: Annotated[Path | None, typer.Option(help="Base model.", exists=True)] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Adapter to serve unmerged on the base.", exists=True),
    ] = None,
    merged: Annotated[Path | None, typer.Option(help="Merged model.", exists=True)] = None,
    quantized: Annotated[Path | None, typer.Option(help="Quantized model.", exists=True)] = None,
    runtime: Annotated[Runtime, typer.Option(help="The engine.")] = Runtime.VLLM,
    accelerator: Annotated[
        str, typer.Option(help="nvidia.com/gpu, or None for CPUs.")
    ] = NO_ACCELERATOR,
    input_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.", min=1)] = 512,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.", min=2)] = 128,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Clients at a time; repeatable.", min=1)
    ] = None,
    precision: Annotated[str, typer.Option(help="Half-width to reach, e.g. 5%.")] = "5%",
    max_duration: Annotated[str, typer.Option(help="When to stop at the latest.")] = "30m",
    every_condition: Annotated[
        bool,
        typer.Option(
            "--every-condition",
            help="Measure all conditions in every block, not base and quantized alone: whether "
            "merged is as fast as base, and unmerged slower, can be decided then.",
        ),
    ] = False,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="A flag for the engine; repeatable: --engine-arg=--x=y")
    ] = None,
) -> None:
    """Measure time to first token, time per output token, throughput and peak memory.

    Each condition runs in fresh engine processes, in blocks of random order, until the difference
    between base and quantized is as precise as asked or the time is over. Any of the four may be
    left out. Writes benchmark.json with the arrival of every token, and the engines' logs.
    """
    from lora_api.parameters import BenchmarkParameters
    from lora_jobs.byhand import empty_folder
    from lora_jobs.termination import end_promptly_on_sigterm

    end_promptly_on_sigterm()  # which also stops the engine
    conditions = _conditions(base, adapter or [], merged, quantized)
    parameters = BenchmarkParameters(
        runtime=runtime,
        image="",
        args=engine_arg or [],
        accelerator=accelerator,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        concurrency=sorted(set(concurrency or [1])),
        precision=precision,
    )
    empty_folder(output)
    document = _measure(conditions, parameters, max_duration, every_condition, output / "engines")
    (output / "benchmark.json").write_text(json.dumps(document, indent=1) + "\n")
    _print(document)


def _conditions(
    base: Path | None, adapters: list[Path], merged: Path | None, quantized: Path | None
) -> "list[Condition]":
    from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED
    from lora_jobs.benchmarking.conditions import Condition

    if adapters and not base:
        raise typer.BadParameter("an adapter is served on its --base", param_hint="--adapter")
    found = [Condition(BASE, base)] if base else []
    if base and adapters:
        found.append(Condition(DYNAMIC, base, tuple(adapters)))
    found += [Condition(MERGED, merged)] if merged else []
    found += [Condition(QUANTIZED, quantized)] if quantized else []
    if not found:
        raise typer.BadParameter("give at least one of --base, --merged, --quantized")
    return found


def _measure(
    conditions: "list[Condition]",
    parameters: Any,
    max_duration: str,
    every_condition: bool,
    work: Path,
) -> dict[str, Any]:
    from lora_api.gates import percent
    from lora_api.times import seconds_of
    from lora_jobs.benchmarking.environment import environment
    from lora_jobs.benchmarking.protocol import Limits, benchmark
    from lora_jobs.benchmarking.results import (
        expectations_of,
        measurements_of,
        notes_of,
        samples_of,
    )
    from lora_jobs.byhand import progress_bar

    try:
        precision = float(percent(parameters.precision))
        limits = Limits(precision, seconds_of(max_duration), every_condition)
    except (ValueError, ArithmeticError) as error:
        raise typer.BadParameter(f"--precision is e.g. 5%, --max-duration 30m: {error}") from None
    facts = environment(parameters.runtime, parameters.accelerator, parameters.product)
    with progress_bar() as progress:
        done = benchmark(conditions, parameters, limits, work, progress)
    return {
        "measurements": measurements_of(done),
        "notes": notes_of(done, limits.precision, facts),
        "samples": samples_of(done, expectations_of(done, artifact=""), facts),
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from lora_api.gates import CONDITIONS
    from lora_jobs.conditiontable import condition_rows

    table = Table("", *CONDITIONS, "quantized vs base", title="Speed and memory")
    for row in condition_rows(document["measurements"]):
        table.add_row(row.label, *row.cells, row.change)
    console = Console()
    console.print(table)
    for name, note in document["notes"].items():
        console.print(f"{name}: {note}", highlight=False)
