"""The store that a person names, or that of the request in the environment."""

import os
from pathlib import Path

import typer

from lora_api.connections import Connection, S3Connection
from lora_api.jobcontract import REQUEST_ENV, StageRequest, StoreReference
from lora_jobs.runner import parse_request
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import ObjectStore
from lora_jobs.store.opening import open_store


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
