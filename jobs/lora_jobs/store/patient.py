"""A store that is waited for: outages of minutes cost patience, not a finished stage.

What a GPU made for hours is worth more than a few minutes; probes, which the operator starts again
anyway, use the store as it is. The HTTP client's own attempts are over in about a second.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.store.interface import (
    BYTES,
    JSON,
    Content,
    FileHash,
    ObjectStore,
    StoredObject,
)

PATIENCE_SECONDS = 420.0
"""Waited in all for one operation: longer than an outage of five minutes."""
LONGEST_WAIT_SECONDS = 30.0

Answer = TypeVar("Answer")


class PatientStore:
    """`ObjectStore` that tries again while the store cannot be reached.

    A reply may be lost after the server wrote. What is then "there already" is compared before it
    is called somebody else's.
    """

    def __init__(self, store: ObjectStore, sleep: Callable[[float], None] = time.sleep) -> None:
        self._store, self._sleep = store, sleep

    def uri(self, key: str = "") -> str:
        """As the store's."""
        return self._store.uri(key)

    def below(self, prefix: str) -> "PatientStore":
        """As patient."""
        return PatientStore(self._store.below(prefix), self._sleep)

    def check(self) -> None:
        """As the store's, later."""
        self._try(self._store.check)

    def list(self, prefix: str = "") -> list[StoredObject]:
        """As the store's, later."""
        return self._try(lambda: self._store.list(prefix))

    def head(self, key: str) -> StoredObject | None:
        """As the store's, later."""
        return self._try(lambda: self._store.head(key))

    def is_stored(self, key: str, expected: FileHash) -> bool:
        """As the store's, later."""
        return self._try(lambda: self._store.is_stored(key, expected))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """As the store's, later."""
        return self._try(lambda: self._store.read(key, start, length))

    def create(self, key: str, data: bytes, content_type: str = JSON) -> bool:
        """True also where an earlier attempt wrote this and its reply was lost."""
        return self._write_if(key, data, lambda: self._store.create(key, data, content_type))

    def replace(self, key: str, data: bytes, etag: str, content_type: str = JSON) -> bool:
        """True also where an earlier attempt wrote this and its reply was lost."""
        return self._write_if(key, data, lambda: self._store.replace(key, data, etag, content_type))

    def write(self, key: str, data: bytes, content_type: str = JSON) -> None:
        """As the store's, later."""
        self._try(lambda: self._store.write(key, data, content_type))

    def upload(
        self, key: str, file: Path, content_type: str = BYTES, known: FileHash | None = None
    ) -> None:
        """As the store's, later."""
        self._try(lambda: self._store.upload(key, file, content_type, known))

    def download(self, key: str, file: Path, etag: str = "") -> str:
        """As the store's, later; what is there already is not fetched again."""
        return self._try(lambda: self._store.download(key, file, etag))

    def delete(self, key: str) -> None:
        """As the store's, later."""
        self._try(lambda: self._store.delete(key))

    def remove_stale(self, now: float) -> int:
        """As the store's, later."""
        return self._try(lambda: self._store.remove_stale(now))

    def _write_if(self, key: str, data: bytes, write: Callable[[], bool]) -> bool:
        attempts = 0

        def once() -> bool:
            nonlocal attempts
            attempts += 1
            return write()

        if self._try(once):
            return True
        if attempts == 1:
            return False
        there = self.read(key, 0, len(data) + 1)
        return there is not None and there.data == data

    def _try(self, work: Callable[[], Answer]) -> Answer:
        attempts = Retrying(
            retry=retry_if_exception(_is_outage),
            stop=_is_over,
            wait=wait_exponential_jitter(initial=1, max=LONGEST_WAIT_SECONDS),
            sleep=self._sleep,
            reraise=True,
        )
        return attempts(work)


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, Waiting) and error.reason is Reason.STORE_UNREACHABLE


def _is_over(state: RetryCallState) -> bool:
    return state.idle_for >= PATIENCE_SECONDS
