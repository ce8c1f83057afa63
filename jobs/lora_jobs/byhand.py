"""What the verbs share when a person runs them: stores, output folders, progress on stderr."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from lora_api.base import DECIMAL
from lora_api.connections import Connection, S3Connection
from lora_api.jobcontract import REQUEST_ENV, Progress, StageRequest, StoreReference
from lora_jobs.context import ReportProgress
from lora_jobs.runner import parse_request
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import ObjectStore
from lora_jobs.store.opening import open_store


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


def requested() -> StageRequest:
    """The request in the environment, of a verb that Jobs and people call.

    Raises:
        typer.BadParameter: There is none.
    """
    if REQUEST_ENV not in os.environ:
        raise typer.BadParameter(f"give --store, or a request in {REQUEST_ENV}")
    return parse_request(os.environ)


def opened_store(store: str, scope: str, connection: str, endpoint: str) -> ObjectStore:
    """The scope of a store that a person names, or that of the request in the environment.

    Args:
        store: s3://BUCKET/PREFIX or a folder; empty for the request's.
        scope: Of the store.
        connection: JSON as an item of spec.connections, or empty.
        endpoint: Of an S3 server, in place of a connection.

    Raises:
        typer.BadParameter: Neither a store nor a request is there, or store or connection are none.
    """
    if not store:
        request = requested()
        return open_store(request.store, request.connections)
    if "://" in store and not store.startswith(("s3://", "file://")):
        raise typer.BadParameter(f"{store} is neither s3://BUCKET/PREFIX nor a folder")
    if not store.startswith("s3://"):
        folder = DirectoryStore(Path(store.removeprefix("file://")).resolve())
        return folder.below(scope) if scope else folder
    reached = _connection(connection, endpoint)
    reference = StoreReference(uri=store, scope=scope, connection=reached.name if reached else "")
    return open_store(reference, [reached] if reached else [])


def _connection(document: str, endpoint: str) -> Connection | None:
    if document:
        try:
            return Connection.model_validate_json(document)
        except ValueError as error:
            raise typer.BadParameter(f"--connection is no connection: {error}") from None
    if endpoint:
        return Connection(name="store", s3=S3Connection(endpoint=endpoint))
    return None
