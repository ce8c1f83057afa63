"""Progress lines and errors that a person reads.

Every step prints one line with the time since the command began. Errors carry the next thing to do,
and the CLI prints them without a traceback.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_BEGAN = time.monotonic()


class ClusterError(Exception):
    """Something the user can act on; the message says what to do next."""


def say(text: str) -> None:
    """Prints one progress line to stderr: stdout is for results (`env`, image names)."""
    print(f"[{time.monotonic() - _BEGAN:6.1f}s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announces a slow step and says how long it took; silent about steps under half a second."""
    say(text)
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took >= 0.5:
        say(f"  done in {took:.1f} s")


def wait_until(
    what: str,
    ready: Callable[[], bool],
    *,
    seconds: float,
    interval: float = 0.05,
    alive: Callable[[], None] | None = None,
    hint: str = "",
) -> None:
    """Polls `ready` until it is true. `alive` may raise early, e.g. when the process is gone."""
    deadline = time.monotonic() + seconds
    while not ready():
        if alive is not None:
            alive()
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} was not ready after {seconds:.0f} s. {hint}".strip())
        time.sleep(interval)


def tail(path: Path, lines: int = 15) -> str:
    """The end of a log, indented for an error message."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return f"  (no log at {path})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
