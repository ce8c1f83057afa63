"""Evaluation of folders, without store, digests or operator."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lora_api.estimates import is_comparison
from lora_api.gates import BASE, CONDITIONS, DYNAMIC, MERGED, QUANTIZED, WEIGHTS_BYTES
from lora_api.spec import LossOn
from lora_jobs.context import ReportProgress
from lora_jobs.datasets.records import read_records
from lora_jobs.evaluating.comparisons import comparisons_of
from lora_jobs.evaluating.distributions import DISTRIBUTIONS, agreement_rows, distributions_look
from lora_jobs.evaluating.freerunning import FREE_RUNNING, free_running_looks, length_rows
from lora_jobs.evaluating.measure import NoEntries, Subject, measure
from lora_jobs.evaluating.scores import measurements_of
from lora_jobs.evaluating.sets import evaluation_set, protocol_of
from lora_jobs.pretrained import compute_dtype, load_tokenizer


def evaluate_folders(
    *,
    base: Path | None,
    adapters: Sequence[Path],
    merged: Path | None,
    quantized: Path | None,
    sets: Mapping[str, Path],
    context_length: int,
    loss_on_all: bool,
    progress: ReportProgress,
) -> dict[str, Any]:
    """Measure every condition whose folders are given.

    Returns:
        measurements, notes and scores, as they are written to evaluation.json.

    Raises:
        Refused: A set or a model cannot be read.
    """
    subjects = _subjects(base, adapters, merged, quantized)
    lead = merged or quantized or base
    assert lead is not None  # the caller gives at least one model
    dtype = compute_dtype(lead)
    tokenizer = load_tokenizer(lead)
    protocol = protocol_of(lead, tokenizer, dtype, context_length)
    loss_on = LossOn.ALL if loss_on_all else LossOn.COMPLETIONS
    records = [read_records(path, name=name) for name, path in sets.items()]
    evaluation_sets = [evaluation_set(r.name, r, "", loss_on, tokenizer, protocol) for r in records]
    first = evaluation_sets[0]
    looks = [distributions_look(first), *free_running_looks(records[0], tokenizer, first.key)]
    evaluation = measure(subjects, evaluation_sets, dtype, NoEntries(), progress, looks)
    return {
        "measurements": measurements_of(evaluation.scores, evaluation.weights_bytes)
        | comparisons_of(evaluation.scores)
        | agreement_rows(evaluation.looked[DISTRIBUTIONS])
        | length_rows(evaluation.looked.get(FREE_RUNNING, {})),
        "notes": evaluation.notes
        | {
            f"{s.name}Set": f"{s.document_count} documents, {s.scored_tokens} tokens scored"
            for s in evaluation_sets
        },
        "scores": [score.to_document() for score in evaluation.scores],
    }


def _subjects(
    base: Path | None, adapters: Sequence[Path], merged: Path | None, quantized: Path | None
) -> list[Subject]:
    folders: dict[str, tuple[Path, ...]] = {}
    if base:
        folders[BASE] = (base,)
        if adapters:
            folders[DYNAMIC] = (base, *adapters)
    if merged:
        folders[MERGED] = (merged,)
    if quantized:
        folders[QUANTIZED] = (quantized,)
    # By hand there is no digest; the paths keep the scores apart.
    return [Subject(c, paths, tuple(str(p) for p in paths)) for c, paths in folders.items()]


def print_table(document: Mapping[str, Any]) -> None:
    """The four conditions side by side on stdout, and what was left out and why."""
    rows: dict[str, dict[str, str]] = document["measurements"]
    table = Table(title="Quality")
    table.add_column("condition")
    metrics = [m for m in rows if m.startswith("Perplexity/") and not is_comparison(m)]
    for metric in metrics:
        table.add_column(f"perplexity, {metric.removeprefix('Perplexity/')}", justify="right")
    table.add_column("weights", justify="right")
    for condition in CONDITIONS:
        if condition in rows.get(WEIGHTS_BYTES, {}):
            cells = [_rounded(rows[m].get(condition)) for m in metrics]
            table.add_row(condition, *cells, _megabytes(rows[WEIGHTS_BYTES][condition]))
    console = Console()
    console.print(table)
    for name, note in document["notes"].items():
        console.print(f"{name}: {note}")


def _rounded(text: str | None) -> str:
    return "-" if text is None else f"{float(text):.4g}"


def _megabytes(text: str) -> str:
    return f"{int(text) / 1e6:,.2f} MB"
