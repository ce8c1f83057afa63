"""`lora-jobs import-lm-eval`: scores of lm-evaluation-harness, compared item by item."""

import json
from pathlib import Path
from typing import Annotated

import typer

_HELP = "Output folder of lm_eval for it, written with --log_samples."
Folder = Annotated[Path | None, typer.Option(help=_HELP, exists=True, file_okay=False)]


def import_lm_eval(
    output: Annotated[
        Path, typer.Option(help="Folder for lm-eval.json; may hold evaluation.json.")
    ],
    base: Folder = None,
    dynamic: Folder = None,
    merged: Folder = None,
    quantized: Folder = None,
) -> None:
    """Read items of lm_eval tasks; `lora-jobs report` shows them beside the rest.

    Give the same tasks, limit, few-shot examples and chat template to every condition: unlike
    items are refused. Writes means and paired differences with 95 % intervals to lm-eval.json.
    """
    from rich.console import Console
    from rich.table import Column, Table

    from lora_api.gates import BASE, CONDITIONS, DYNAMIC, MERGED, QUANTIZED
    from lora_jobs.conditiontable import condition_rows
    from lora_jobs.importing.lmeval import read_scores, rows_of

    given = {BASE: base, DYNAMIC: dynamic, MERGED: merged, QUANTIZED: quantized}
    scores = {c: read_scores(folder) for c, folder in given.items() if folder}
    if not scores:
        raise typer.BadParameter("give at least one of --base, --dynamic, --merged, --quantized")
    rows = rows_of(scores)
    output.mkdir(parents=True, exist_ok=True)
    (output / "lm-eval.json").write_text(json.dumps({"measurements": rows}, indent=1) + "\n")
    table = Table(Column(overflow="fold"), *CONDITIONS, "quantized - base")
    for row in condition_rows(rows):
        if any(cell != "-" for cell in row.cells):
            table.add_row(row.label, *row.cells, f"{row.change} {row.interval}".strip())
    Console().print(table)
    print(output / "lm-eval.json")
