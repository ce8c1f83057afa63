"""A folder of a volume that several pods share is filled by one of them."""

import errno
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Alone at this folder, from the first look at it to the last byte.

    The kernel gives the lock back when its holder dies, wherever that was. Where the file system
    has no locks, two may download at once, and the later one takes the place of the equal other.
    Nobody fills a read-only volume, so there is nothing to wait for.

    Raises:
        Waiting: The folder is to be filled, and its volume is read-only.
    """
    try:
        with _lock(folder):
            yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise Waiting(
            Reason.STORE_UNREACHABLE,
            f"{folder} does not hold the model and its volume is read-only; fill it once through a "
            "pod that may write, or name a claim that can be written",
        ) from error


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_name(f".{folder.name}.lock").open("w")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        yield
        return
    with file:
        _take(file.fileno(), folder)
        yield


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another pod fills {folder}; waiting for it", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
