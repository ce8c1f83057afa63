"""`lora-jobs provenance`: what a release was made of, and who has signed for it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_jobs.commands.options import Connection, Endpoint, Scope, Store

if TYPE_CHECKING:
    from lora_jobs.attesting.keys import PrivateKey


def provenance(
    name: Annotated[str, typer.Option(help="The LoRADeployment.")],
    release: Annotated[str, typer.Option(help="Id of its release, as in status.releases.")],
    store: Store,
    scope: Scope = "",
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="PEM file of a key that is trusted; repeatable.", exists=True, dir_okay=False
        ),
    ] = None,
    sign_with: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of a private key that signs for it too, once a trusted one has.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    connection: Connection = "",
    endpoint: Endpoint = "",
) -> None:
    """Print the in-toto statement of a release that one of the given keys has signed.

    Ends with 3 when none of them has, or when what lies there does not hold. Without --public-key
    the unsigned statement is printed, as it stands in the bucket: nothing vouches for it.
    """
    from lora_api import layout
    from lora_api.digests import canonical_json
    from lora_jobs.attesting.statement import Subject
    from lora_jobs.attesting.stored import signed_statement, write_signed
    from lora_jobs.stages.recall import read_release
    from lora_jobs.store.byhand import opened_store
    from lora_jobs.store.documents import read_json

    if sign_with and not public_key:
        raise typer.BadParameter("needs --public-key: only what was signed is signed again")
    opened = opened_store(store, scope, connection, endpoint)
    if not public_key:
        unsigned = read_json(opened, layout.unsigned_provenance(name, release))
        if unsigned is None:
            raise typer.BadParameter(
                f"release {release} of {name} has no unsigned statement; give --public-key"
            )
        print("unsigned: nothing vouches for it", file=sys.stderr)
        print(canonical_json(unsigned).decode())
        return
    subject = Subject(scope, name, read_release(opened, name, release).release)
    signed = signed_statement(opened, subject, [file.read_text() for file in public_key])
    print(f"signed by key {signed.key}: {opened.uri(signed.place)}", file=sys.stderr)
    if sign_with:
        write_signed(opened, subject, canonical_json(signed.statement), _private(sign_with))
        print("signed once more", file=sys.stderr)
    print(canonical_json(signed.statement).decode())


def _private(file: Path) -> "PrivateKey":
    from lora_jobs.attesting.keys import private_key

    try:
        return private_key(file.read_bytes())
    except ValueError as error:
        raise typer.BadParameter(f"{file} {error}", param_hint="--sign-with") from None
