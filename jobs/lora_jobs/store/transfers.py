"""Files to an S3 endpoint, in parts, and what both directions share.

What is sent carries checksums that are known already, so nothing is hashed on the way: the server
compares them, also with a file that has changed since.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from itertools import count as count_up
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Any, TypedDict

from s3transfer.utils import ReadFileChunk

from lora_jobs.parallel import in_parallel
from lora_jobs.store.hashing import PART_BYTES
from lora_jobs.store.interface import FileHash

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class Place(TypedDict):
    """Where an object stands, as arguments of boto3."""

    Bucket: str
    Key: str


class _Upload(Place):
    UploadId: str


PARALLEL_PARTS = 8


class Slots:
    """Of all that is on the way, over all files, some at a time.

    The lowest index comes first, so that every file's beginning arrives before any file's end:
    a file is hashed from its beginning, by one core.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int]] = []
        self._changed, self._tickets = Condition(), count_up()

    @contextmanager
    def take(self, index: int) -> Iterator[None]:
        """Wait for one, and give it back."""
        with self._changed:
            mine = (index, next(self._tickets))
            heappush(self._waiting, mine)
            self._changed.wait_for(lambda: self._free > 0 and self._waiting[0] == mine)
            heappop(self._waiting)
            self._free -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


SLOTS = Slots(PARALLEL_PARTS)


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
        with SLOTS.take(0), file.open("rb") as body:
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
        with SLOTS.take(index), body:
            answer = client.upload_part(
                **upload, PartNumber=index + 1, Body=body, ContentLength=len(body), **checksum
            )
        return {"PartNumber": index + 1, "ETag": answer["ETag"], **checksum}

    with _aborted(client, upload):
        parts = in_parallel(part, range(len(expected.parts)))
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


@contextmanager
def _aborted(client: "S3Client", upload: _Upload) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one that tells
            client.abort_multipart_upload(**upload)
        raise
