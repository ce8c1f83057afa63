"""Which releases of an object are kept. Pure; the operator and `lora-jobs gc` ask here."""

from collections.abc import Collection, Sequence


def kept_releases(
    newest_first: Sequence[str], keep: int, in_use: Collection[str]
) -> tuple[str, ...]:
    """The newest, and whatever is in use, in the order given.

    Args:
        newest_first: Ids of releases.
        keep: How many of the newest stay.
        in_use: Those that serve, are pinned, or may serve again at once.
    """
    newest = newest_first[:keep]
    return tuple(r for r in newest_first if r in newest or r in in_use)
