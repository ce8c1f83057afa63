"""Progress as JSON lines on stdout, at most one a second, with an estimate of the time left."""

import threading
import time
from collections.abc import Callable
from typing import TextIO

from lora_api.jobcontract import Progress

MIN_INTERVAL_SECONDS = 1.0


class ProgressLines:
    """`ReportProgress` onto a stream. The last line of each piece of work is always written."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._lock = threading.Lock()
        self._written_at: float | None = None
        self._work: tuple[str, str] | None = None
        self._began_at = 0.0
        self._began_done = 0

    def __call__(self, progress: Progress) -> None:
        """Write a line, unless one was written just now."""
        with self._lock:
            now = self._clock()
            work = (progress.unit, progress.message if progress.unit == "bytes" else "")
            if work != self._work:
                self._work, self._began_at, self._began_done = work, now, progress.done
            last = self._written_at
            if last is not None and now - last < MIN_INTERVAL_SECONDS and not _finished(progress):
                return
            self._written_at = now
            if progress.eta_seconds is None:
                progress = progress.model_copy(update={"eta_seconds": self._eta(progress, now)})
            print(progress.to_line(), file=self._stream, flush=True)

    def _eta(self, progress: Progress, now: float) -> int | None:
        """At the mean pace since this piece of work began; None before anything is done."""
        done = progress.done - self._began_done
        if done <= 0:
            return None
        return round((now - self._began_at) / done * (progress.total - progress.done))


def _finished(progress: Progress) -> bool:
    return progress.done >= progress.total


class TransferProgress:
    """Adds up the bytes that are through and reports them; called from several threads."""

    def __init__(self, report: Callable[[Progress], None], message: str, total: int) -> None:
        self._report, self._message, self._total = report, message, total
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, size: int) -> None:
        """One more file of `size` bytes is there."""
        with self._lock:
            self._done += size
            done = min(self._done, self._total)
        self._report(Progress(done=done, total=self._total, unit="bytes", message=self._message))
