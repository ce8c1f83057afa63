"""`lora-jobs gc`: what a store holds for releases that are not kept; shown, or removed."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from lora_jobs.commands.options import Connection, Endpoint, Scope, Store

if TYPE_CHECKING:
    from lora_jobs.collecting import Garbage
    from lora_jobs.store.interface import ObjectStore


def gc(
    store: Store,
    name: Annotated[str, typer.Option(help="The LoRADeployment whose releases are looked at.")],
    keep_newest: Annotated[int, typer.Option(min=0, help="So many of its newest releases stay.")],
    scope: Scope = "",
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Id of a release that stays, e.g. what serves or is pinned; repeatable."),
    ] = None,
    older_than: Annotated[
        str, typer.Option(help="Younger releases stay: runs may be about to use what they need.")
    ] = "168h",
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove it; without this nothing is changed.")
    ] = False,
    connection: Connection = "",
    endpoint: Endpoint = "",
) -> None:
    """List the releases of one object that are not kept, and what only they need.

    With --remove they are removed. What a release that stays, of any object in the scope, also
    needs stays.

    The store does not know what serves: give its release with --keep.
    """
    from lora_api.retention import kept_releases
    from lora_api.times import seconds_of
    from lora_jobs.collecting import filed_releases, find_garbage, made_by
    from lora_jobs.store.byhand import opened_store

    try:
        younger_than = time.time() - seconds_of(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from None
    opened = opened_store(store, scope, connection, endpoint)
    filed = filed_releases(opened)
    newest_first = [f.record.release.id for f in filed if f.name == name]
    if not newest_first:
        raise typer.BadParameter(
            f"{opened.uri()} has no release of {name}; it has those of "
            f"{', '.join(sorted({f.name for f in filed})) or 'nothing'}",
            param_hint="--name",
        )
    kept = kept_releases(newest_first, keep_newest, keep or ())
    garbage = find_garbage(filed, name, kept, younger_than, made_by(opened))
    for release in newest_first:
        why = "goes" if release in garbage.releases else "stays"
        print(f"release {release} {why}{', too young' if release in garbage.too_young else ''}")
    finish(opened, name, garbage, remove)


def finish(store: "ObjectStore", name: str, garbage: "Garbage", remove: bool) -> None:
    """Show what would go, or remove it.

    Args:
        store: The scope.
        name: The object whose releases go too; empty for none.
        garbage: What can go.
        remove: Whether it does.
    """
    from lora_jobs.byhand import progress_bar
    from lora_jobs.collecting import bytes_of, collect

    sizes = bytes_of(store, garbage)
    for what, size in sizes.items():
        kind = "" if what in garbage.checkpoints else "artifact "
        print(f"{kind}{what} goes, {size / 1e9:.3f} GB")
    counts = [f"{len(garbage.releases)} releases"] if name else []
    counts.append(f"{len(garbage.artifacts)} artifacts")
    if garbage.checkpoints:
        counts.append(f"{len(garbage.checkpoints)} checkpoints")
    total = f"{', '.join(counts)}, {sum(sizes.values()) / 1e9:.3f} GB"
    if not remove:
        print(f"{total} would go; nothing was changed. --remove removes them")
        return
    with progress_bar() as progress:
        collect(store, name, garbage, progress)
    print(f"removed {total}")
