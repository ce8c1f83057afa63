"""One object from an S3 endpoint to a file, in ranges of one ETag, several at once.

What arrives at the file's beginning is hashed from the memory in which it came; what arrives
further on is written first and hashed from the file once its turn has come. How far that got stands
in a small file beside it (`resuming`), from where an interrupted fetch goes on.
"""

import hashlib
import os
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from botocore.exceptions import HTTPClientError, IncompleteReadError

from lora_jobs.parallel import in_parallel
from lora_jobs.store.interface import StoredObject
from lora_jobs.store.resuming import done_of, set_done
from lora_jobs.store.transfers import SLOTS, Place

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

RANGE_BYTES = 32 * 2**20
BLOCK_BYTES = 2**18
"""Few enough for the CPU's cache, and for an allocator to give the same memory again."""
_ATTEMPTS = 5
"""Of a range, one after the other with less than a block of progress."""


def fetch(client: "S3Client", place: Place, found: StoredObject, file: Path) -> str:
    """Download exactly this object; returns the file's SHA-256 in hex.

    An earlier fetch of the same ETag is continued. The mark beside the file is left, so that a
    fetch of many files can be continued too; `remove_marks` ends that.
    """
    done = done_of(file, found.etag) // RANGE_BYTES
    file.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not done:
            os.truncate(target, 0)
        arrival = _Arrival(target, file, found, done)

        def part(index: int) -> None:
            if index < done:
                arrival.ended(index)
            else:
                _fetch_range(client, place, arrival, index)

        in_parallel(part, range(-(-found.size // RANGE_BYTES)))
    finally:
        os.close(target)
    return arrival.sha256()


class _Arrival:
    """A file whose ranges arrive in any order.

    Only the thread of the first range that is not whole hashes while it writes, so the hash needs
    no lock; whoever ends that range takes over those behind it that are there.
    """

    def __init__(self, target: int, file: Path, found: StoredObject, done: int) -> None:
        self.found = found
        self._target, self._file, self._done = target, file, done
        self._whole, self._hashed = hashlib.sha256(), 0
        self._first, self._ended, self._lock = 0, set[int](), Lock()

    def range(self, index: int) -> tuple[int, int]:
        """First byte, and the one after the last."""
        return index * RANGE_BYTES, min((index + 1) * RANGE_BYTES, self.found.size)

    def write(self, index: int, block: bytes, position: int) -> None:
        """The next bytes of a range."""
        os.pwrite(self._target, block, position)
        if index == self._first:
            self._hash_up_to(position)
            self._whole.update(block)
            self._hashed += len(block)

    def ended(self, index: int) -> None:
        """All bytes of a range are there."""
        with self._lock:
            self._ended.add(index)
            while self._first in self._ended:
                self._hash_up_to(self.range(self._first)[1])
                self._first += 1
                if self._first > self._done:
                    set_done(self._file, self.found.etag, self._first * RANGE_BYTES)

    def sha256(self) -> str:
        """Of the whole, in hex."""
        return self._whole.hexdigest()

    def _hash_up_to(self, end: int) -> None:
        while self._hashed < end:
            block = os.pread(self._target, min(BLOCK_BYTES, end - self._hashed), self._hashed)
            self._whole.update(block)
            self._hashed += len(block)


def _fetch_range(client: "S3Client", place: Place, arrival: _Arrival, index: int) -> None:
    """A connection that breaks is taken up where it broke."""
    position, end = arrival.range(index)
    failures = 0
    while position < end:
        before = position
        error: Exception = IncompleteReadError(actual_bytes=0, expected_bytes=end - position)
        try:
            with SLOTS.take(index):
                answer = client.get_object(
                    **place, IfMatch=f'"{arrival.found.etag}"', Range=f"bytes={position}-{end - 1}"
                )
                with answer["Body"] as body:
                    while block := body.read(BLOCK_BYTES):
                        arrival.write(index, block, position)
                        position += len(block)
        except (HTTPClientError, IncompleteReadError) as broken:
            error = broken
        failures = 0 if position - before >= BLOCK_BYTES else failures + 1
        if position < end and failures >= _ATTEMPTS:
            raise error
    arrival.ended(index)
