"""`lora-jobs publish`: a folder as an artifact in a store; `lora-jobs fetch` is the way back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lora_jobs.commands.options import STORE_HELP, Connection, Endpoint, Scope


def publish(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of a model or adapter.", exists=True, file_okay=False),
    ],
    store: Annotated[str, typer.Argument(help=STORE_HELP)],
    scope: Scope = "",
    connection: Connection = "",
    endpoint: Endpoint = "",
) -> None:
    """Upload a folder as an artifact and print its digest.

    Files go first; the store is asked for the size and checksum of each, and the manifest, without
    which there is no artifact, is written last. What is there already is not sent again, so an
    upload that was cut is continued by the same command. Safetensors only: what can run code, or is
    not whole, is refused before anything is sent.
    """
    from lora_api import layout
    from lora_jobs.byhand import progress_bar
    from lora_jobs.progress import TransferProgress
    from lora_jobs.sources.selection import refuse_unfit_folder
    from lora_jobs.store.artifacts import publish_artifact
    from lora_jobs.store.byhand import opened_store

    total = refuse_unfit_folder(folder)
    opened = opened_store(store, scope, connection, endpoint)
    with progress_bar() as progress:
        digest = publish_artifact(opened, folder, TransferProgress(progress, "publishing", total))
    print(digest)
    print(f"{opened.uri(layout.artifact(digest))}: {total:,} bytes, compared", file=sys.stderr)
