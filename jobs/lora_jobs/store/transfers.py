"""Files to and from an S3 endpoint, in parts, each byte hashed once.

What is sent carries checksums that are known already, so nothing is hashed on the way: the server
compares them, also with a file that has changed since. What is fetched is asked for in ranges of
one ETag, several at once, and hashed as its beginning becomes complete, while the rest still
arrives. How far that got stands in a small file beside it (`resuming`), from where an interrupted
fetch goes on.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, TypedDict

from botocore.exceptions import HTTPClientError, IncompleteReadError
from s3transfer.utils import ReadFileChunk

from lora_jobs.store.hashing import PART_BYTES
from lora_jobs.store.interface import FileHash, StoredObject
from lora_jobs.store.resuming import done_of, set_done

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class Place(TypedDict):
    """Where an object stands, as arguments of boto3."""

    Bucket: str
    Key: str


class _Upload(Place):
    UploadId: str


PARALLEL_PARTS = 8
RANGE_BYTES = 32 * 2**20
BLOCK_BYTES = 2**20
_ATTEMPTS = 5
"""Of a range, one after the other with less than a block of progress."""
_slots = BoundedSemaphore(PARALLEL_PARTS)
"""Over all files: several are on the way at once."""


def send(
    client: "S3Client",
    place: Place,
    file: Path,
    expected: FileHash,
    content_type: str,
    with_checksums: bool,
) -> None:
    """Upload a file; what was begun and fails is aborted.

    Args:
        client: Signs no bodies where checksums are sent.
        place: Bucket and Key.
        file: Its bytes must still be those of `expected`; a server that compares refuses others.
        expected: Size and hashes.
        content_type: Of the object.
        with_checksums: Whether the server understands `x-amz-checksum-*`.
    """
    arguments: dict[str, Any] = {**place, "ContentType": content_type}
    if not expected.parts:
        checksum: dict[str, Any] = {"ChecksumSHA256": expected.checksum} if with_checksums else {}
        with _slots, file.open("rb") as body:
            client.put_object(**arguments, **checksum, Body=body, ContentLength=expected.size)
        return
    if with_checksums:
        arguments["ChecksumAlgorithm"] = "CRC32C"
    begun = client.create_multipart_upload(**arguments)
    upload: _Upload = {**place, "UploadId": begun["UploadId"]}

    def part(index: int) -> Any:
        checksum: dict[str, Any] = {}
        if with_checksums:
            checksum["ChecksumCRC32C"] = expected.parts[index]
        body: Any = ReadFileChunk.from_filename(str(file), index * PART_BYTES, PART_BYTES)
        with _slots, body:
            answer = client.upload_part(
                **upload, PartNumber=index + 1, Body=body, ContentLength=len(body), **checksum
            )
        return {"PartNumber": index + 1, "ETag": answer["ETag"], **checksum}

    with _aborted(client, upload):
        parts = _in_order(part, len(expected.parts))
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": list(parts)})


def fetch(client: "S3Client", place: Place, found: StoredObject, file: Path) -> str:
    """Download exactly this object; returns the file's SHA-256 in hex.

    An earlier fetch of the same ETag is continued. The mark beside the file is left, so that a
    fetch of many files can be continued too; `remove_marks` ends that.
    """
    count = -(-found.size // RANGE_BYTES)
    done = done_of(file, found.etag) // RANGE_BYTES
    whole = hashlib.sha256()
    file.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)

    def part(index: int) -> None:
        if index >= done:
            first = index * RANGE_BYTES
            _fetch_range(client, place, found, target, first, min(first + RANGE_BYTES, found.size))

    try:
        if not done:
            os.truncate(target, 0)
        for index, _ in enumerate(_in_order(part, count)):
            first = index * RANGE_BYTES
            for start in range(first, min(first + RANGE_BYTES, found.size), BLOCK_BYTES):
                most = min(BLOCK_BYTES, found.size - start)
                whole.update(os.pread(target, most, start))
            if index >= done:
                set_done(file, found.etag, (index + 1) * RANGE_BYTES)
    finally:
        os.close(target)
    return whole.hexdigest()


def _fetch_range(
    client: "S3Client", place: Place, found: StoredObject, target: int,
    first: int, end: int,
) -> None:  # fmt: skip
    """Write bytes first..end; a connection that breaks is taken up where it broke."""
    buffer: Any = memoryview(bytearray(BLOCK_BYTES))  # the stubs ask for a file
    failures = 0
    while first < end:
        before = first
        try:
            with _slots:
                answer = client.get_object(
                    **place, IfMatch=f'"{found.etag}"', Range=f"bytes={first}-{end - 1}"
                )
                with answer["Body"] as body:
                    while count := body.readinto(buffer):
                        os.pwrite(target, buffer[:count], first)
                        first += count
            if first >= end:
                return
            raise IncompleteReadError(actual_bytes=first - before, expected_bytes=end - before)
        except (HTTPClientError, IncompleteReadError):
            failures = 0 if first - before >= BLOCK_BYTES else failures + 1
            if failures >= _ATTEMPTS:
                raise


def _in_order(part: Any, count: int) -> Iterator[Any]:
    """Results of `part(0)`, `part(1)`, ..., several made at once; the first error ends all."""
    with ThreadPoolExecutor(PARALLEL_PARTS, "part") as pool:
        futures = [pool.submit(part, index) for index in range(count)]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _aborted(client: "S3Client", upload: _Upload) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one that tells
            client.abort_multipart_upload(**upload)
        raise
