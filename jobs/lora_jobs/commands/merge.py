"""`lora-jobs merge`: merge adapters into their base by hand."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lora_api.spec import BaseWeights


def merge(
    base: Annotated[
        Path, typer.Option(help="Folder of the base model.", exists=True, file_okay=False)
    ],
    adapter: Annotated[
        list[Path],
        typer.Option(
            help="Folder of a PEFT adapter; several are summed.", exists=True, file_okay=False
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must be empty or missing.")],
    weight: Annotated[
        list[str] | None,
        typer.Option(help="What each --adapter is multiplied by, e.g. 0.5; one for each, or none."),
    ] = None,
    base_weights: Annotated[
        BaseWeights, typer.Option(help="DequantizedNF4 for adapters trained by QLoRA.")
    ] = BaseWeights.ORIGINAL,
    force: Annotated[bool, typer.Option(help="Replace a model that is at --output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Merge LoRA adapters into their base model: on CPU, streaming, rounded once.

    LoRA, rsLoRA and DoRA with rank and alpha patterns on linear, Conv1D and embedding layers, saved
    modules, trainable tokens, resized vocabularies, biases and experts; anything else is refused by
    name. A tied head is untied where it was trained apart. Equal inputs give equal bytes. The
    folder appears when all of it is written.
    """
    from lora_jobs.byhand import checked_weights, progress_bar
    from lora_jobs.merging import merge_adapters

    given = checked_weights(weight or [], len(adapter), "adapters")
    weights = [float(text) for text in given] or [1.0] * len(adapter)
    base, output = base.resolve(), output.resolve()
    adapters = [(folder.resolve(), w) for folder, w in zip(adapter, weights, strict=True)]
    _check_output(output, force, keep=(base, *(folder for folder, _ in adapters)))
    # Aside, so that the old model is there until the new one is.
    target = output.with_name(output.name + ".new") if force else output
    shutil.rmtree(target, ignore_errors=True) if force else None
    with progress_bar() as progress:
        report = merge_adapters(base, adapters, target, progress, base_weights)
    if force:
        shutil.rmtree(output, ignore_errors=True)
        target.rename(output)
    if as_json:
        files = [{"path": path} | f._asdict() for path, f in report.files.items()]
        document = asdict(report) | {"files": files}
        print(json.dumps(document, indent=2))
        return
    print(report.message)
    print(
        f"{output}: {len(report.files)} files, {sum(f.size for f in report.files.values()):,} bytes"
    )
    for name, note in report.notes.items():
        print(f"{name}: {note}")


def _check_output(output: Path, force: bool, keep: tuple[Path, ...]) -> None:
    """Only a model is ever replaced, and never one that is read.

    Raises:
        typer.BadParameter: There is something at the output.
    """
    if any(output == folder or output in folder.parents for folder in keep):
        raise typer.BadParameter(f"{output} holds what is merged", param_hint="--output")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    is_model = (output / "config.json").is_file() and any(output.glob("*.safetensors"))
    if not force:
        raise typer.BadParameter(f"{output} is not empty", param_hint="--output")
    if not is_model:
        raise typer.BadParameter(
            f"{output} holds no model; nothing else is replaced", param_hint="--output"
        )
