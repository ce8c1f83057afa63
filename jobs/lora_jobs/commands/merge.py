"""`lora-jobs merge`: merge an adapter into its base by hand."""

from pathlib import Path
from typing import Annotated

import typer

from lora_jobs.byhand import progress_bar

Folder = typer.Option(exists=True, file_okay=False)


def merge(
    base: Annotated[Path, Folder],
    adapter: Annotated[Path, Folder],
    output: Annotated[Path, typer.Option(help="folder to make; it must not exist")],
) -> None:
    """Merge a LoRA adapter into its base model: on CPU, streaming, one rounding.

    Plain LoRA and rsLoRA with rank and alpha patterns; anything else is refused by name.
    """
    from lora_jobs.merging import merge_adapter

    if output.exists():
        raise typer.BadParameter(f"{output} exists already", param_hint="--output")
    with progress_bar() as progress:
        report = merge_adapter(base, adapter, output, progress)
    print(report.message)
    print(f"{output}: {len(report.files)} files, {sum(f.size for f in report.files):,} bytes")
