"""`lora-jobs report`: render a report again, or one of what `evaluate` and `benchmark` left."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_api.gates import Measurements, judge
from lora_api.gatespec import Gates

if TYPE_CHECKING:
    from lora_api.report import Report


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="with report.json, or with evaluation.json and benchmark.json",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="folder for report.json and report.html; default: the same")
    ] = None,
    gates: Annotated[
        Path | None, typer.Option(exists=True, help="JSON or YAML with `gates`; default: defaults")
    ] = None,
) -> None:
    """Render report.json and report.html.

    From a report.json it makes the page again; from evaluation.json and benchmark.json (of
    `lora-jobs evaluate` and `lora-jobs benchmark`) it judges and renders, and shows what
    `lora-jobs import-lm-eval` put beside them.
    """
    from lora_jobs.reporting.render import JSON_NAME, read_report, render

    there = folder / JSON_NAME
    document = read_report(there) if there.exists() else _by_hand(folder, gates)
    _, page = render(document, output or folder)
    print(f"{document.verdict}: {document.sentence}\n{page}")


def _by_hand(folder: Path, gates_file: Path | None) -> "Report":
    import yaml

    from lora_jobs.reporting.document import report_document

    measurements: Measurements = {}
    samples: dict[str, Any] | None = None
    scores: dict[str, Any] | None = None
    for name in ("evaluation.json", "benchmark.json", "lm-eval.json"):
        file = folder / name
        if file.exists():
            measured = json.loads(file.read_text())
            measurements |= measured["measurements"]
            samples = measured.get("samples", samples)
            scores = measured if "scores" in measured else scores
    if not measurements:
        raise typer.BadParameter(f"{folder} holds no evaluation.json and no benchmark.json")
    chosen = yaml.safe_load(gates_file.read_text()) if gates_file else {}
    judgement = judge(Gates.model_validate(chosen.get("gates", chosen)), measurements)
    return report_document(
        name=folder.resolve().name,
        run_id="by hand",
        judgement=judgement,
        measurements=measurements,
        done=[],
        candidate="default",
        sources={},
        spec={},
        samples=samples,
        scores=scores,
    )
