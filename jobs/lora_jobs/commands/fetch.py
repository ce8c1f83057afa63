"""`lora-jobs fetch`: an artifact as a folder, every sha256 verified; serving pods begin with it."""

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_api.base import DIGEST
from lora_api.digests import canonical_json
from lora_api.jobcontract import RESULT_PATH_ENV
from lora_jobs.commands.options import Connection, Endpoint, Scope, Store
from lora_jobs.errors import StageError

if TYPE_CHECKING:
    from lora_jobs.store.interface import ObjectStore


def fetch(
    digest: Annotated[str, typer.Option(help="sha256:... of the artifact.")],
    output: Annotated[
        Path,
        typer.Option(help="The folder, below a volume; it appears when all of it is right."),
    ],
    store: Store = "",
    scope: Scope = "",
    connection: Connection = "",
    endpoint: Endpoint = "",
) -> None:
    """Download an artifact and verify every file before an engine may read it.

    A folder that holds exactly this artifact is left as it is, once it has been hashed again. Of
    several that fill one folder of a shared volume, one downloads and the others wait for it.
    Without --store, store and connections are those of the request in LORA_STAGE_REQUEST; where
    that names keys, one of them must have signed for the release first. Why it cannot be had is
    written to LORA_STAGE_RESULT too, where that is set.
    """
    from lora_jobs.store.artifacts import verify_folder
    from lora_jobs.store.byhand import opened_store
    from lora_jobs.store.filling import filling
    from lora_jobs.termination import end_promptly_on_sigterm

    if not re.fullmatch(DIGEST, digest):
        raise typer.BadParameter(
            f"{digest} is not sha256: and 64 hexadecimal digits", param_hint="--digest"
        )
    end_promptly_on_sigterm()
    try:
        with filling(output):
            if not store:
                _require_signature(digest, output)
            if verify_folder(output, digest):
                print(f"{output} holds {digest}, verified")
                return
            _download(opened_store(store, scope, connection, endpoint), digest, output)
    except StageError as error:
        if result_path := os.environ.get(RESULT_PATH_ENV):
            Path(result_path).write_text(error.to_termination_message())
        raise
    print(f"{output} holds {digest}, fetched and verified")


def _require_signature(digest: str, output: Path) -> None:
    """Of a key that the request trusts, for its very release; seen once, it is kept on the volume.

    So a pod that finds its model there restarts while the store is down, as without signatures.
    """
    from lora_jobs.attesting.statement import Subject
    from lora_jobs.attesting.stored import is_signed, signed_statement
    from lora_jobs.store.byhand import opened_store, requested
    from lora_jobs.store.directory import DirectoryStore

    request = requested()
    if request.public_keys is None:
        return
    release = request.release
    if release is None or release.artifact != digest:
        raise typer.BadParameter(
            "is not the artifact of the request's release", param_hint="digest"
        )
    subject = Subject(request.store.scope, request.run.name, release)
    saved = DirectoryStore(output.parent / ".provenance")
    if not is_signed(saved, subject, request.public_keys):
        signed = signed_statement(opened_store("", "", "", ""), subject, request.public_keys)
        with suppress(OSError, StageError):  # a volume that can only be read
            saved.write(signed.place, canonical_json(signed.envelope))
    print(f"a trusted key has signed for release {release.id}")


def _download(store: "ObjectStore", digest: str, output: Path) -> None:
    from lora_jobs.progress import ProgressLines, TransferProgress
    from lora_jobs.store.artifacts import fetch_artifact, read_manifest

    manifest = read_manifest(store, digest)
    total = manifest.size if manifest else 0
    progress = TransferProgress(ProgressLines(sys.stdout), "fetching", total)
    fetch_artifact(store, digest, output, progress)
