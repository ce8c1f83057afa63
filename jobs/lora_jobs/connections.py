"""Credentials of connections, as files: one folder a connection, in it the keys of its Secret.

The folder is mounted optional, so that a missing Secret is a typed reason here and not a pod that
hangs in ContainerCreating. Values are handed to clients and never to a message or a log.
"""

import os
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

from lora_api.connections import CaBundle, Connection
from lora_api.jobcontract import (
    AUTHORITIES_DIR_ENV,
    AUTHORITIES_FILE,
    CREDENTIALS_DIR_ENV,
    DEFAULT_AUTHORITIES_DIR,
    DEFAULT_CREDENTIALS_DIR,
    Reason,
)
from lora_jobs.errors import Waiting

LOCAL_RUN_ENV = "LORA_LOCAL_RUN"
"""Set by `lora-jobs run`: file:// is allowed, and a missing Secret falls back to what the user's
shell offers (AWS_* variables and profiles, HF_TOKEN)."""


def is_local_run(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is no cluster around us."""
    return bool(environment.get(LOCAL_RUN_ENV))


def find_connection(connections: Iterable[Connection], name: str) -> Connection | None:
    """The connection of that name; None for the empty name.

    Raises:
        Waiting: It is named but not defined.
    """
    if not name:
        return None
    for connection in connections:
        if connection.name == name:
            return connection
    raise Waiting(
        Reason.INVALID_INPUT,
        f'connection "{name}" is not defined; add it to spec.connections or correct the name',
    )


def read_credentials(connection: Connection | None, *keys: str) -> dict[str, str]:
    """The named keys of the connection's Secret; empty when it has none (workload identity).

    Raises:
        Waiting: A Secret is named but not there, or lacks a key.
    """
    secret = _secret_name(connection)
    if connection is None or not secret:
        return {}
    folder = Path(os.environ.get(CREDENTIALS_DIR_ENV, DEFAULT_CREDENTIALS_DIR)) / connection.name
    missing = [key for key in keys if not (folder / key).is_file()]
    if not missing:
        return {key: (folder / key).read_text().strip() for key in keys}
    if is_local_run() and not folder.is_dir():
        return {}
    raise Waiting(
        Reason.CREDENTIALS_MISSING,
        f'Secret "{secret}" of connection "{connection.name}" is not there or lacks '
        f"{' and '.join(missing)}; create it in the object's namespace with "
        f"{' and '.join(keys)}",
    )


def authorities_file(connection: Connection | None) -> str:
    """Path of the connection's CA bundle; empty when it has none.

    By hand, where there is no ConfigMap, what AWS_CA_BUNDLE and SSL_CERT_FILE name is trusted.

    Raises:
        Waiting: A ConfigMap is named but not there, or lacks the key.
    """
    bundle = connection.ca_bundle if connection else None
    if connection is None or bundle is None:
        return ""
    folder = Path(os.environ.get(AUTHORITIES_DIR_ENV, DEFAULT_AUTHORITIES_DIR)) / connection.name
    file = folder / AUTHORITIES_FILE
    if file.is_file():
        return _checked(file, bundle)
    if is_local_run() and not folder.is_dir():
        return ""
    raise Waiting(
        Reason.CREDENTIALS_MISSING,
        f'ConfigMap "{bundle.config_map_name}" of connection "{connection.name}" is not there or '
        f"lacks {bundle.key}; create it in the object's namespace with the PEM certificates of "
        "the endpoint's authority",
    )


def _checked(file: Path, bundle: CaBundle) -> str:
    try:
        ssl.create_default_context().load_verify_locations(file)
    except ssl.SSLError:
        raise Waiting(
            Reason.INVALID_INPUT,
            f'{bundle.key} of ConfigMap "{bundle.config_map_name}" holds no PEM certificate; put '
            "the certificates of the endpoint's authority there",
        ) from None
    return str(file)


def _secret_name(connection: Connection | None) -> str:
    if connection is None:
        return ""
    if connection.hugging_face:
        reference = connection.hugging_face.secret_ref
    else:
        assert connection.s3 is not None  # a connection has exactly one kind
        reference = connection.s3.secret_ref or connection.s3.read_secret_ref
    return reference.name if reference else ""
