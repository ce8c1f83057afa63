"""From a URI and a connection to the backend that serves it."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from lora_api.connections import Connection
from lora_api.jobcontract import Reason, StoreReference
from lora_jobs.connections import (
    authorities_file,
    find_connection,
    is_local_run,
    read_credentials,
)
from lora_jobs.errors import Waiting
from lora_jobs.store.claim import open_claim
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import ObjectStore


def open_place(uri: str, connection: Connection | None) -> ObjectStore:
    """The prefix or folder of an `s3://`, `pvc://` or `file://` URI; nothing is asked of it yet.

    Raises:
        Waiting: The URI cannot be reached that way, or the connection's Secret is missing.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return DirectoryStore(_local_path(uri))
    if scheme == "pvc":
        return open_claim(uri)
    if scheme != "s3" or not rest.strip("/"):
        raise Waiting(Reason.INVALID_INPUT, f"{uri} is neither s3://BUCKET/PREFIX nor file:///PATH")
    if connection and connection.s3 is None:
        raise Waiting(
            Reason.INVALID_INPUT,
            f'{uri} needs an S3 connection; "{connection.name}" is of another kind',
        )
    # Here and not at the top: boto3 takes half a second, and a local run may do without.
    from lora_jobs.store.s3 import CREDENTIAL_KEYS, open_s3

    bucket, _, prefix = rest.strip("/").partition("/")
    credentials = read_credentials(connection, *CREDENTIAL_KEYS)
    settings = connection.s3 if connection else None
    return open_s3(bucket, prefix, settings, credentials, authorities_file(connection))


def open_store(reference: StoreReference, connections: Iterable[Connection]) -> ObjectStore:
    """The scope of a store, reachable and there.

    Raises:
        Waiting: The bucket is missing, access is denied or the endpoint does not answer.
    """
    place = open_place(reference.uri, find_connection(connections, reference.connection))
    place.check()
    return place.below(reference.scope) if reference.scope else place


def _local_path(uri: str) -> Path:
    path = Path(unquote(uri.removeprefix("file://")))
    if not is_local_run():
        raise Waiting(
            Reason.INVALID_INPUT,
            f"{uri} is a path of one machine and works in local runs only; use s3://, hf:// or pvc://",
        )
    if not path.is_absolute():
        raise Waiting(Reason.INVALID_INPUT, f"{uri} is not absolute; write file:///PATH")
    return path
