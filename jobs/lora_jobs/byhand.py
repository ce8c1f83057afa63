"""What the verbs share when a person runs them: output folders, weights, progress on stderr."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from lora_api.base import DECIMAL
from lora_api.jobcontract import Progress
from lora_jobs.context import ReportProgress


def empty_folder(folder: Path) -> Path:
    """Make an output folder.

    Raises:
        typer.BadParameter: There is something in it; nothing is ever overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(f"{folder} is not empty", param_hint="--output")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checked_weights(given: list[str], count: int, what: str) -> list[str]:
    """The weights of --weight: one for each of `count`, or none.

    Raises:
        typer.BadParameter: There are more or fewer, or one is no decimal number.
    """
    if given and len(given) != count:
        raise typer.BadParameter(
            f"{len(given)} weights for {count} {what}; give one for each", param_hint="--weight"
        )
    wrong = [text for text in given if not re.fullmatch(DECIMAL, text)]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is no number like 0.5", param_hint="--weight")
    return given


@contextmanager
def progress_bar() -> Iterator[ReportProgress]:
    """A bar on stderr that follows `Progress` until the end of the block."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None, unit="", left="")

        def follow(progress: Progress) -> None:
            eta = progress.eta_seconds
            bar.update(
                task,
                description=progress.message or "working",
                completed=progress.done,
                total=progress.total,
                unit=progress.unit,
                left="" if eta is None else f"{eta} s left",
            )

        yield follow
