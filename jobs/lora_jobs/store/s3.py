"""A prefix of a bucket at an S3-compatible endpoint.

Beside `transfers` and `downloads`, alone with boto3.

Every upload carries checksums that the server verifies: SHA-256, or CRC32C of each part of files of
`PART_BYTES` and more, which go in parts of that size (`transfers`). Create-only and
replace-if-unchanged are conditional writes (`If-None-Match`, `If-Match`), which the store's
correctness rests on: a server without them cannot be used.

A checksum goes in a header, never in a trailer, which boto3 would choose over TLS: a server that
refuses a condition before it has read the body (versitygw 1.8 does) takes what is left of such a
body for the next request on that connection and answers 400 to it.

Traps: boto3's CRT transfers ignore a custom endpoint (boto3#4839), and its classic ones hash every
byte again and cannot be continued, so parts are sent and fetched here. Big files are written first
and the small document that makes them count is created last. A reply that is lost after the server
wrote looks like a lost race when the client tries again: then what is there is compared.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)

from lora_api.connections import Checksums, S3Connection
from lora_api.jobcontract import Reason
from lora_jobs.errors import StageError, Waiting
from lora_jobs.store.downloads import fetch
from lora_jobs.store.hashing import hash_file, plain_checksum
from lora_jobs.store.interface import (
    BYTES,
    JSON,
    STALE_SECONDS,
    Content,
    FileHash,
    ObjectChanged,
    ObjectMissing,
    StoredObject,
    checked_key,
)
from lora_jobs.store.transfers import Place, send

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CREDENTIAL_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_DENIED = {"403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "ExpiredToken",
           "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "RequestTimeTooSkewed",
           "SignatureDoesNotMatch", "TokenRefreshRequired", "XAdminUserNotFound"}  # fmt: skip
_EXPIRED = {"400", "ExpiredToken", "TokenRefreshRequired"}
"""400 without a body is how S3 answers HEAD with an expired token."""
_TOLERATED_SKEW = timedelta(minutes=15)
"""Of a signature's time (S3 API, RequestTimeTooSkewed)."""
_ABSENT = {"404", "NoSuchKey"}
_CONDITION_FAILED = {"412", "PreconditionFailed"}
_RACED = {"409", "ConditionalRequestConflict", "OperationAborted"}
_BUSY = {"500", "502", "503", "504", "InternalError", "SlowDown", "ServiceUnavailable",
         "RequestTimeout"}  # fmt: skip
_RACE_ATTEMPTS = 5


class S3Store:
    """Keys below `prefix` of one bucket."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        prefix: str = "",
        *,
        transferring: "S3Client | None" = None,
        checksums: Checksums = Checksums.WHEN_SUPPORTED,
    ) -> None:
        self.client, self.bucket, self.prefix = client, bucket, prefix.strip("/")
        self._transferring, self._checksums = transferring or client, checksums

    def uri(self, key: str = "") -> str:
        """An `s3://` URI."""
        return "/".join(part for part in (f"s3://{self.bucket}", self.prefix, key) if part)

    def below(self, prefix: str) -> "S3Store":
        """The same bucket and client."""
        return S3Store(
            self.client,
            self.bucket,
            self._key(prefix),
            transferring=self._transferring,
            checksums=self._checksums,
        )

    def check(self) -> None:
        """HeadBucket.

        Needed because an absent bucket and an absent key look alike in an answer without a body.
        """
        with self._explained():
            try:
                self.client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if _code(error) not in _ABSENT:
                    raise
                raise self._no_bucket() from error

    def list(self, prefix: str = "") -> list[StoredObject]:
        """Pages through the listing."""
        start = f"{self.prefix}/" if self.prefix else ""
        pages = self.client.get_paginator("list_objects_v2")
        with self._explained():
            return sorted(
                _stored(found["Key"][len(start) :], found["Size"], found)
                for page in pages.paginate(Bucket=self.bucket, Prefix=start + prefix)
                for found in page.get("Contents", [])
                if not found["Key"].endswith("/")  # consoles make such keys to show a folder
            )

    def head(self, key: str) -> StoredObject | None:
        """HeadObject."""
        found = self._head(key)
        return found and _stored(key, found["ContentLength"], found)

    def is_stored(self, key: str, expected: FileHash) -> bool:
        """Compares the checksum where the server keeps one of the same form.

        An object that another tool copied may have other parts or none; then the size must do, and
        the full SHA-256 at the next fetch.
        """
        found = self._head(key, ChecksumMode="ENABLED")
        if not found or found["ContentLength"] != expected.size:
            return False
        parts = expected.checksum.partition("-")[2]
        kept = found.get("ChecksumCRC32C" if parts else "ChecksumSHA256", "")
        comparable = kept.partition("-")[2] == parts
        return not kept or not comparable or kept == expected.checksum

    def read(self, key: str, start: int = 0, length: int | None = None) -> Content | None:
        """A ranged GetObject."""
        end = "" if length is None else str(start + length - 1)
        try:
            with self._explained():
                answer = self.client.get_object(
                    Bucket=self.bucket, Key=self._key(key), Range=f"bytes={start}-{end}"
                )
                return Content(answer["Body"].read(), answer["ETag"].strip('"'))
        except ObjectMissing:
            return None
        except ClientError as error:
            found = self.head(key) if _code(error) in ("416", "InvalidRange") else None
            if found is None:
                raise
            return Content(b"", found.etag)

    def create(self, key: str, data: bytes, content_type: str = JSON) -> bool:
        """PutObject with `If-None-Match: *`."""
        return self._put_if(key, data, content_type, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, etag: str, content_type: str = JSON) -> bool:
        """PutObject with `If-Match`."""
        return self._put_if(key, data, content_type, IfMatch=f'"{etag}"')

    def write(self, key: str, data: bytes, content_type: str = JSON) -> None:
        """PutObject."""
        with self._explained():
            self.client.put_object(**self._object(key, data, content_type))

    def upload(
        self, key: str, file: Path, content_type: str = BYTES, known: FileHash | None = None
    ) -> None:
        """In parts, several at once, each with its checksum; aborted when it fails."""
        with self._explained():
            send(
                self._transferring,
                self._place(key),
                file,
                known or hash_file(file),
                content_type,
                self._checksums is Checksums.WHEN_SUPPORTED,
            )

    def download(self, key: str, file: Path, etag: str = "") -> str:
        """In ranges with `If-Match`, so that no two objects mix."""
        found = self.head(key)
        if found is None:
            raise ObjectMissing(key)
        if etag and found.etag != etag:
            raise ObjectChanged(key)
        with self._explained():
            return fetch(self._transferring, self._place(key), found, file)

    def delete(self, key: str) -> None:
        """DeleteObject; where the bucket keeps versions, the object is hidden, not destroyed."""
        with self._explained():
            self.client.delete_object(**self._place(key))

    def remove_stale(self, now: float) -> int:
        """Aborts multipart uploads; a server that cannot list them has none."""
        start = f"{self.prefix}/" if self.prefix else ""
        pages = self.client.get_paginator("list_multipart_uploads")
        count = 0
        with self._explained():
            for page in pages.paginate(Bucket=self.bucket, Prefix=start):
                for upload in page.get("Uploads", []):
                    if now - upload["Initiated"].timestamp() > STALE_SECONDS:
                        self.client.abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        count += 1
        return count

    def _place(self, key: str) -> Place:
        return {"Bucket": self.bucket, "Key": self._key(key)}

    def _object(self, key: str, data: bytes, content_type: str) -> dict[str, Any]:
        arguments = {**self._place(key), "Body": data, "ContentType": content_type}
        if self._checksums is Checksums.WHEN_SUPPORTED:
            arguments["ChecksumSHA256"] = plain_checksum(hashlib.sha256(data).hexdigest())
        return arguments

    def _head(self, key: str, **arguments: Any) -> Any:
        try:
            with self._explained():
                return self.client.head_object(Bucket=self.bucket, Key=self._key(key), **arguments)
        except ObjectMissing:
            return None

    def _put_if(self, key: str, data: bytes, content_type: str, **condition: Any) -> bool:
        arguments = self._object(key, data, content_type) | condition
        for _ in range(_RACE_ATTEMPTS):
            try:
                with self._explained():
                    self.client.put_object(**arguments)
                    return True
            except (ObjectChanged, ObjectMissing) as error:
                return _was_tried_again(error) and self._holds(key, data)
            except ClientError as error:
                if _code(error) not in _RACED:
                    raise
        raise Waiting(
            Reason.STORE_UNREACHABLE,
            f"{self.uri(key)} is being written by too many at once at {self._endpoint}",
        )

    def _holds(self, key: str, data: bytes) -> bool:
        there = self.read(key, 0, len(data) + 1)
        return there is not None and there.data == data

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)

    @cached_property
    def _endpoint(self) -> str:
        return self.client.meta.endpoint_url

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a user can put right into `Waiting`, a failed condition into ours."""
        try:
            yield
        except ClientError as error:
            raise (self._explain(error) or error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Waiting(
                Reason.CREDENTIALS_MISSING,
                f"no credentials for {self.uri()} at {self._endpoint}; give the connection a "
                "secretRef, the pod a service account with workload identity, or a program "
                "that you run AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from error
        except SSLError as error:
            raise Waiting(
                Reason.STORE_UNREACHABLE,
                f"no TLS with {self._endpoint} (SSLError); if its certificate is not trusted, put "
                "its authority into a ConfigMap and name that as the connection's caBundle",
            ) from error
        except BotoCoreError as error:
            raise Waiting(
                Reason.STORE_UNREACHABLE,
                f"no answer from {self._endpoint} for bucket {self.bucket} "
                f"({type(error).__name__}); check the connection's endpoint and the network",
            ) from error

    def _explain(self, error: ClientError) -> Exception | None:
        code = _code(error)
        if code in _CONDITION_FAILED:
            return ObjectChanged()
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in _ABSENT:
            return ObjectMissing()
        if code in _DENIED | _EXPIRED:
            return self._denied(code, _skew(error))
        if code in _BUSY:
            return Waiting(
                Reason.STORE_UNREACHABLE,
                f"{self._endpoint} answers {code} for bucket {self.bucket}; tried again later",
            )
        return None

    def _denied(self, code: str, skew: timedelta) -> StageError:
        cure = "check the key, secret and policy of the connection's Secret or service account"
        if code in _EXPIRED:
            cure = (
                "its token has expired; give the connection's Secret or service account a new one"
            )
        if abs(skew) > _TOLERATED_SKEW:
            cure = f"the clocks here and there are {abs(skew)} apart; synchronise this node's"
        return Waiting(
            Reason.ACCESS_DENIED,
            f"{self._endpoint} refuses access to {self.uri()} ({code}); {cure}",
        )

    def _no_bucket(self) -> StageError:
        return Waiting(
            Reason.BUCKET_NOT_FOUND,
            f"bucket {self.bucket} does not exist at {self._endpoint}; create it or correct the "
            "URI or the connection",
        )


def open_s3(
    bucket: str,
    prefix: str,
    connection: S3Connection | None,
    credentials: dict[str, str],
    authorities: str = "",
) -> S3Store:
    """A store at a connection's endpoint; what is not given is left to boto3's default chain.

    `authorities` is a file of PEM certificates; empty: those of the image, or of AWS_CA_BUNDLE.
    """
    checksums = connection.checksums if connection else Checksums.WHEN_SUPPORTED
    settings: dict[str, Any] = {
        "endpoint": connection.endpoint if connection else "",
        "region": connection.region if connection else "",
        "by_path": connection is not None and connection.path_style,
        "access_key": credentials.get("AWS_ACCESS_KEY_ID", ""),
        "secret_key": credentials.get("AWS_SECRET_ACCESS_KEY", ""),
        "with_checksums": checksums is Checksums.WHEN_SUPPORTED,
        "authorities": authorities,
    }
    return S3Store(
        _client(**settings),
        bucket,
        prefix,
        transferring=_client(**settings, for_files=True),
        checksums=checksums,
    )


@lru_cache(maxsize=16)
def _client(
    *,
    endpoint: str,
    region: str,
    by_path: bool,
    access_key: str,
    secret_key: str,
    with_checksums: bool,
    authorities: str,
    for_files: bool = False,
) -> "S3Client":
    """One client a connection: making one takes a quarter of a second.

    That for files signs no bodies: it sends the checksum that is known, in a header that is signed,
    and does not check answers, which are hashed here anyway.
    """
    addressing: Any = {"addressing_style": "path" if by_path else "auto"}
    if for_files and with_checksums:
        addressing["payload_signing_enabled"] = False
    config = Config(
        signature_version="s3v4",
        s3=addressing,
        request_checksum_calculation="when_supported" if with_checksums else "when_required",
        response_checksum_validation=(
            "when_supported" if with_checksums and not for_files else "when_required"
        ),
        retries={"mode": "standard", "max_attempts": 6},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region or None,
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
        verify=authorities or None,
        config=config,
    )


def _stored(key: str, size: int, found: Mapping[str, Any]) -> StoredObject:
    return StoredObject(key, size, found["ETag"].strip('"'), found["LastModified"].timestamp())


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _skew(error: ClientError) -> timedelta:
    """How far the server's clock is from ours, to the second; nothing where it does not say."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        there = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return timedelta()
    return timedelta(seconds=round(there - time.time()))


def _was_tried_again(error: Exception) -> bool:
    """Whether the client had sent the request before, and perhaps had written."""
    cause = error.__cause__
    answer: Any = cause.response if isinstance(cause, ClientError) else {}
    return bool(answer.get("ResponseMetadata", {}).get("RetryAttempts"))
