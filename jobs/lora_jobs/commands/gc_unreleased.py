"""`lora-jobs gc-unreleased`: artifacts that no release needs; shown, or removed."""

import time
from typing import Annotated

import typer

from lora_jobs.commands.gc import finish
from lora_jobs.commands.options import Connection, Endpoint, Scope, Store


def gc_unreleased(
    store: Store,
    scope: Scope = "",
    older_than: Annotated[
        str, typer.Option(help="Younger artifacts stay: runs may be about to use them.")
    ] = "720h",
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove them; without this nothing is changed.")
    ] = False,
    connection: Connection = "",
    endpoint: Endpoint = "",
) -> None:
    """List the models that no release of the scope needs, e.g. of runs that failed their gates.

    With --remove they are removed. What was measured of them stays on record; where a later run
    needs such a model it is made again.
    """
    from lora_api.times import seconds_of
    from lora_jobs.byhand import opened_store
    from lora_jobs.collecting import ARTIFACTS, filed_releases, find_unreleased, made_by

    try:
        younger_than = time.time() - seconds_of(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from None
    opened = opened_store(store, scope, connection, endpoint)
    filed = filed_releases(opened)
    garbage = find_unreleased(opened.list(ARTIFACTS), filed, younger_than, made_by(opened))
    finish(opened, "", garbage, remove)
