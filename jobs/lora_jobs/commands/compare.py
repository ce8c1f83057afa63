"""`lora-jobs compare`: two reports side by side."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    one: Annotated[Path, typer.Argument(help="a report.json or its folder", exists=True)],
    other: Annotated[Path, typer.Argument(help="the other", exists=True)],
    output: Annotated[Path, typer.Option(help="the page to write")] = Path("compare.html"),
) -> None:
    """Write a page with two runs side by side, and what was asked for otherwise."""
    from rich.console import Console
    from rich.table import Table

    from lora_jobs.reporting.compare import comparison_html, gates_side_by_side
    from lora_jobs.reporting.render import JSON_NAME, read_report

    reports = [read_report(p / JSON_NAME if p.is_dir() else p) for p in (one, other)]
    output.write_text(comparison_html(*reports))
    table = Table("gate", *(f"{r.name} {r.run_id}" for r in reports))
    table.add_row("", *(r.verdict.value for r in reports))
    for name, results in gates_side_by_side(*reports):
        table.add_row(name, *(f"{g.observed} {g.verdict}".strip() if g else "-" for g in results))
    Console().print(table)
    print(output)
