"""A file that is hashed while it is written.

Writing and hashing run in threads of their own, beside the arithmetic that makes the next block:
hashlib, the kernel and file writes all release the interpreter's lock. Blocks lie in memory that is
used again, for fresh pages cost as much as what is done with them. The disk is asked for its part
while there is more to write, so that little is left for the end.
"""

import os
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any, Self

import numpy as np

from lora_jobs.merging.tensors import Raw
from lora_jobs.store.hashing import Hashes
from lora_jobs.store.interface import FileHash

WAITING_BLOCKS = 3
"""That a thread may be behind: enough to keep it busy, and what memory holds."""

FLUSH_BYTES = 32 * 2**20
"""What is written before the disk is asked to take it."""

Block = bytes | Raw
Room = Callable[[int], Raw]
"""Memory for the next block of that many bytes."""


class HashedFile:
    """Takes a file's bytes in order; `close` waits until they are on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("wb")
        self._hashes = Hashes()
        self._unflushed = 0
        # In the order in which they end: the writer still asks the flusher.
        self._takers = (_Lane(self._write), _Lane(self._hashes.add))
        self._flusher = _Lane(os.fdatasync)
        self._lanes = (*self._takers, self._flusher)
        # Of each lane one block is at work and some wait; one more is being made.
        self._memory = [np.empty(0, np.uint8) for _ in range(WAITING_BLOCKS + 2)]
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for lane in self._lanes:
            lane.end()
        self._stream.close()

    def room(self, size: int) -> Raw:
        """Memory for the next block, (size,); what is in it is anything."""
        slot = self._count % len(self._memory)
        if len(self._memory[slot]) < size:
            self._memory[slot] = np.empty(size, np.uint8)
        return self._memory[slot][:size]

    def put(self, block: Block) -> None:
        """Append a block, whose memory must not change any more unless it is from `room`.

        Raises:
            OSError: This or an earlier block could not be written, e.g. the disk is full.
        """
        self._count += 1
        for lane in self._takers:
            lane.put(block)

    def close(self) -> FileHash:
        """Wait for the disk.

        Raises:
            OSError: A block could not be written.
        """
        for lane in self._lanes:
            lane.end()
        for lane in self._lanes:
            lane.check()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._hashes.finish()

    def _write(self, block: Any) -> None:
        self._stream.write(block)
        self._unflushed += len(block)
        if self._unflushed >= FLUSH_BYTES:
            self._flusher.put(self._stream.fileno())
            self._unflushed = 0


class _Lane:
    """A thread that does one thing with each item, in order, until it fails."""

    def __init__(self, work: Callable[[Any], object]) -> None:
        self._work = work
        self._waiting: Queue[Any | None] = Queue(WAITING_BLOCKS)
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        self.check()
        self._waiting.put(item)

    def check(self) -> None:
        if self._error:
            raise self._error

    def end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._work(item)
                except Exception as error:  # told by whoever puts the next block, or closes
                    self._error = error
