"""SIGTERM ends a stage program promptly with 143, whatever it is doing.

Python runs a signal handler between two bytecodes of the main thread, which a long native call (a
matrix product, a kernel) can hold up for minutes. So the handler asks politely by raising, and a
thread that the signal wakes directly ends the process when that took too long.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 128 + signal.SIGTERM
GRACE_SECONDS = 5.0

_longer_seconds: list[float] = []


def end_promptly_on_sigterm(grace_seconds: float = GRACE_SECONDS) -> None:
    """Install the handler; call once, from the main thread."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(
        target=_end_after, args=(reader, grace_seconds), name="termination", daemon=True
    ).start()


@contextmanager
def longer_grace(seconds: float) -> Iterator[None]:
    """Give work that has something to save more time, below the 30 s that Kubernetes waits."""
    _longer_seconds.append(seconds)
    try:
        yield
    finally:
        _longer_seconds.remove(seconds)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # clean-up is not to be interrupted in turn
    sys.exit(EXIT_TERMINATED)


def _end_after(reader: int, grace_seconds: float) -> None:
    while received := os.read(reader, 1):
        if received[0] == signal.SIGTERM:
            threading.Event().wait(max([grace_seconds, *_longer_seconds]))
            os._exit(EXIT_TERMINATED)
