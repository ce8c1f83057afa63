"""`lora-jobs import-benchmark`: what another load tool measured, as a benchmark.json of ours."""

import json
from pathlib import Path
from typing import Annotated

import typer

_HELP = "Its result file; one for each fresh engine process, repeatable."
Files = Annotated[list[Path] | None, typer.Option(help=_HELP, exists=True, dir_okay=False)]


def import_benchmark(
    output: Annotated[Path, typer.Option(help="Folder for benchmark.json.")],
    base: Files = None,
    dynamic: Files = None,
    merged: Files = None,
    quantized: Files = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Where the files do not say it.", min=1)
    ] = None,
) -> None:
    """Read results of `vllm bench serve`, AIPerf or GuideLLM; `lora-jobs report` judges them.

    Each file is one block: restart the engine before each, and take the conditions in turns. The
    first file of base is paired with the first of quantized, and so on; a judgement needs 6 of
    each. Closed loops only, all of one concurrency and equal lengths.
    """
    from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED
    from lora_jobs.byhand import empty_folder
    from lora_jobs.importing.rows import read_run, rows_of

    given = {BASE: base, DYNAMIC: dynamic, MERGED: merged, QUANTIZED: quantized}
    runs = {c: [read_run(file) for file in files] for c, files in given.items() if files}
    if not runs:
        raise typer.BadParameter("give at least one of --base, --dynamic, --merged, --quantized")
    rows = rows_of(runs, concurrency)
    empty_folder(output)
    tools = {c: f"{len(r)} runs of {r[0].tool}" for c, r in runs.items()}
    document = {"measurements": rows, "notes": {f"imported/{c}": t for c, t in tools.items()}}
    (output / "benchmark.json").write_text(json.dumps(document, indent=1) + "\n")
    for condition, told in tools.items():
        print(f"{condition}: {told}")
    print(output / "benchmark.json")
