"""A file that is hashed while it is written: whole, and in the parts that S3 takes.

Writing and the two hashes run in threads of their own, beside the arithmetic that makes the next
block: hashlib, numpy and file writes all release the interpreter's lock.
"""

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lora_api.digests import FileDigest
from lora_jobs.store.hashing import PART_BYTES

MAX_WAITING_BLOCKS = 4
"""Blocks that may wait to be written: enough to keep the threads busy, and what memory holds."""

Block = bytes | memoryview


@dataclass(frozen=True)
class WrittenFile:
    """A file on disk and its hashes.

    Attributes:
        parts: Hex SHA-256 of each `PART_BYTES` of it, the last one shorter.
    """

    digest: FileDigest
    parts: tuple[str, ...]


class HashedFile:
    """Takes a file's bytes in order; `close` waits until they are on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("wb")
        self._whole = hashlib.sha256()
        self._parts = _PartHashes()
        self._size = 0
        self._writing = ThreadPoolExecutor(1, "write")
        self._hashing = ThreadPoolExecutor(1, "hash")
        self._waiting: deque[tuple[Future[None], Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for thread in (self._writing, self._hashing):
            thread.shutdown(cancel_futures=True)
        self._stream.close()

    def put(self, block: Block) -> None:
        """Append a block, whose memory must not change any more.

        Raises:
            OSError: This or an earlier block could not be written, e.g. the disk is full.
        """
        self._size += len(block)
        self._wait_for(MAX_WAITING_BLOCKS)
        self._waiting.append(
            (self._writing.submit(self._write, block), self._hashing.submit(self._parts.add, block))
        )

    def close(self) -> WrittenFile:
        """Wait for the disk.

        Raises:
            OSError: A block could not be written.
        """
        self._wait_for(0)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        digest = FileDigest(self._path.name, self._size, self._whole.hexdigest())
        return WrittenFile(digest, self._parts.finish())

    def _wait_for(self, most: int) -> None:
        while len(self._waiting) > most:
            for done in self._waiting.popleft():
                done.result()

    def _write(self, block: Block) -> None:
        self._stream.write(block)
        self._whole.update(block)


class _PartHashes:
    """SHA-256 of consecutive parts."""

    def __init__(self) -> None:
        self._finished: list[str] = []
        self._part, self._room = hashlib.sha256(), PART_BYTES

    def add(self, block: Block) -> None:
        rest = memoryview(block)
        while len(rest):
            piece, rest = rest[: self._room], rest[self._room :]
            self._part.update(piece)
            self._room -= len(piece)
            if not self._room:
                self._finished.append(self._part.hexdigest())
                self._part, self._room = hashlib.sha256(), PART_BYTES

    def finish(self) -> tuple[str, ...]:
        """All of them; a file of no bytes has one part."""
        if self._room < PART_BYTES or not self._finished:
            self._finished.append(self._part.hexdigest())
        return tuple(self._finished)
