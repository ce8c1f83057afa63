"""`lora-jobs gc-unreleased`: artifacts that no release needs; shown, or removed."""

import time
from typing import Annotated

import typer


def gc_unreleased(
    store: Annotated[str, typer.Option(help="s3://BUCKET/PREFIX or a folder.")],
    scope: Annotated[str, typer.Option(help="Scope in the store: [CLUSTER/]NAMESPACE.")] = "",
    older_than: Annotated[
        str, typer.Option(help="Younger artifacts stay: runs may be about to use them.")
    ] = "720h",
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove them; without this nothing is changed.")
    ] = False,
    connection: Annotated[
        str, typer.Option(help="JSON as an item of spec.connections; its keys are files.")
    ] = "",
    endpoint: Annotated[
        str, typer.Option(help="S3 endpoint, with keys from the environment or profile.")
    ] = "",
) -> None:
    """List the models that no release of the scope needs, e.g. of runs that failed their gates.

    With --remove they are removed. What was measured of them stays on record; where a later run
    needs such a model it is made again.
    """
    from lora_api.times import seconds_of
    from lora_jobs.byhand import opened_store, progress_bar
    from lora_jobs.collecting import (
        ARTIFACTS,
        bytes_of,
        collect,
        filed_releases,
        find_unreleased,
        made_by,
    )

    try:
        younger_than = time.time() - seconds_of(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from None
    opened = opened_store(store, scope, connection, endpoint)
    filed = filed_releases(opened)
    garbage = find_unreleased(opened.list(ARTIFACTS), filed, younger_than, made_by(opened))
    sizes = bytes_of(opened, garbage)
    for digest, size in sizes.items():
        print(f"artifact {digest} goes, {size / 1e9:.3f} GB")
    total = f"{len(sizes)} artifacts, {sum(sizes.values()) / 1e9:.3f} GB"
    if not remove:
        print(f"{total} would go; nothing was changed. --remove removes them")
        return
    with progress_bar() as progress:
        collect(opened, "", garbage, progress)
    print(f"removed {total}")
