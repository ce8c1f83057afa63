"""`lora-jobs gc-unreleased`: what no release needs and nobody works on; shown, or removed."""

import time
from dataclasses import replace
from typing import Annotated

import typer

from lora_jobs.commands.gc import finish
from lora_jobs.commands.options import Connection, Endpoint, Scope, Store


def gc_unreleased(
    store: Store,
    scope: Scope = "",
    older_than: Annotated[
        str, typer.Option(help="What is younger stays: runs may be about to use it.")
    ] = "720h",
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove them; without this nothing is changed.")
    ] = False,
    connection: Connection = "",
    endpoint: Endpoint = "",
) -> None:
    """List the models that no release of the scope needs, e.g. of runs that failed their gates.

    And the checkpoints that nobody went on with. With --remove they are removed. What was measured
    of such models stays on record; where a later run needs one it is made again.
    """
    from lora_api.times import seconds_of
    from lora_jobs.collecting import (
        ARTIFACTS,
        CHECKPOINTS,
        filed_releases,
        find_unfinished,
        find_unreleased,
        made_by,
    )
    from lora_jobs.store.byhand import opened_store

    try:
        younger_than = time.time() - seconds_of(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from None
    opened = opened_store(store, scope, connection, endpoint)
    filed = filed_releases(opened)
    garbage = find_unreleased(opened.list(ARTIFACTS), filed, younger_than, made_by(opened))
    unfinished = find_unfinished(opened.list(CHECKPOINTS), younger_than)
    finish(opened, "", replace(garbage, checkpoints=unfinished), remove)
