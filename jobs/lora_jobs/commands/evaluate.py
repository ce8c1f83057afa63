"""`lora-jobs evaluate`: perplexity of up to four conditions, by hand."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    task: Annotated[
        Path, typer.Option(help="What the adapter is for: held-out records, a file or a folder.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for evaluation.json; empty or missing.")],
    base: Annotated[Path | None, typer.Option(help="Base model.", exists=True)] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Adapter to measure unmerged on the base; repeatable.", exists=True),
    ] = None,
    merged: Annotated[Path | None, typer.Option(help="Merged model.", exists=True)] = None,
    quantized: Annotated[Path | None, typer.Option(help="Quantized model.", exists=True)] = None,
    general: Annotated[Path | None, typer.Option(help="General text: is the rest intact?")] = None,
    context_length: Annotated[int, typer.Option(help="Tokens of a window.", min=2)] = 2048,
    loss_on_all: Annotated[
        bool, typer.Option("--loss-on-all", help="Score prompts too, not only completions.")
    ] = False,
) -> None:
    """Measure perplexity and weight bytes of base, base with adapter, merged and quantized.

    Any of the four may be left out. All are scored on the same tokens, those of the merged (else
    quantized, else base) model's tokenizer. Writes evaluation.json with the NLL of every window.
    """
    from lora_jobs.byhand import empty_folder, progress_bar
    from lora_jobs.evaluating.byhand import evaluate_folders, print_table

    if not (base or merged or quantized):
        raise typer.BadParameter("give at least one of --base, --merged, --quantized")
    if adapter and not base:
        raise typer.BadParameter("an adapter is measured on its --base", param_hint="--adapter")
    empty_folder(output)
    with progress_bar() as progress:
        document = evaluate_folders(
            base=base,
            adapters=adapter or [],
            merged=merged,
            quantized=quantized,
            sets={"task": task} | ({"general": general} if general else {}),
            context_length=context_length,
            loss_on_all=loss_on_all,
            progress=progress,
        )
    _write(output / "evaluation.json", document)
    print_table(document)


def _write(file: Path, document: dict[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=1) + "\n")
