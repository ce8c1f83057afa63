"""Sources on the Hugging Face Hub or a mirror: `hf://ORG/NAME[/PATH]`, `hf://datasets/ORG/NAME`.

A branch or tag is resolved to its commit once; everything after that is read by commit. Large files
come with their SHA-256, small ones with git's blob id; each is checked after the download.
"""

import hashlib
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session

from lora_api.connections import HUB_HOST, Connection
from lora_api.jobcontract import Reason
from lora_jobs.connections import authorities_file, read_credentials
from lora_jobs.errors import Waiting
from lora_jobs.sources.pins import PinnedFile
from lora_jobs.store.interface import ObjectChanged, ObjectMissing
from lora_jobs.store.resuming import forget

TOKEN_KEY = "HF_TOKEN"  # noqa: S105 - the name of a key, not a secret
_PUBLIC = f"https://{HUB_HOST}"
_TIMEOUT_SECONDS = 60.0
_BLOB_ID = "[0-9a-f]{40}"


class HubSource:
    """A repository at a revision, or the part of it below a path."""

    def __init__(self, uri: str, revision: str, connection: Connection | None) -> None:
        self.uri = uri
        parts = uri.removeprefix("hf://").strip("/").split("/")
        self._type = "dataset" if parts[0] == "datasets" else "model"
        if self._type == "dataset":
            parts = parts[1:]
        if len(parts) < 2:
            raise Waiting(Reason.INVALID_INPUT, f"{uri} is not hf://ORGANISATION/NAME")
        self._repository, self._path = "/".join(parts[:2]), "/".join(parts[2:])
        self._asked_revision = revision or None
        settings = connection.hugging_face if connection else None
        self._endpoint = (settings.endpoint if settings else "").rstrip("/") or _PUBLIC
        token = read_credentials(connection, TOKEN_KEY).get(TOKEN_KEY)
        if authorities := authorities_file(connection):
            _client_trust().load_verify_locations(authorities)
        self._api = HfApi(endpoint=self._endpoint, token=token)
        self._headers = build_hf_headers(token=token)

    def revision(self) -> str:
        """The commit."""
        return str(self._info.sha)

    def files(self) -> list[PinnedFile]:
        """All files of the commit, below the path."""
        return [
            PinnedFile(
                path=self._relative(found.rfilename),
                size=found.size or 0,
                etag=found.blob_id or "",
                sha256=found.lfs.sha256 if found.lfs else "",
            )
            for found in self._info.siblings or []
            if self._is_below(found.rfilename)
        ]

    def identified(self, files: Sequence[PinnedFile]) -> list[PinnedFile]:
        """The hub identifies every file."""
        return list(files)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """A ranged GET."""
        end = "" if length is None else str(start + length - 1)
        with self._explained(), self._get(path, {"Range": f"bytes={start}-{end}"}) as answer:
            if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                return b""
            self._check(answer, path)
            data = answer.read()
            # A mirror may ignore the range and send everything.
            if answer.status_code == httpx2.codes.OK:
                data = data[start : None if length is None else start + length]
            return data

    def download(self, file: PinnedFile, target: Path) -> str:
        """Streams and hashes; a file of which some bytes are there is continued.

        The caller compares size and SHA-256.

        Raises:
            ObjectChanged: A file that the hub has no SHA-256 of is not the blob that was pinned.
        """
        whole, there = _beginning(target, file.size)
        headers = {"Range": f"bytes={there}-"} if there else {}
        with (
            self._explained(),
            self._get(file.path, headers) as answer,
            target.open("r+b" if there else "wb") as stream,
        ):
            self._check(answer, file.path)
            if answer.status_code == httpx2.codes.OK:  # a mirror may ignore the range
                whole, there = hashlib.sha256(), 0
            stream.truncate(there)
            stream.seek(there)
            for block in answer.iter_bytes(2**20):
                stream.write(block)
                whole.update(block)
        is_blob = not file.sha256 and re.fullmatch(_BLOB_ID, file.etag)
        if is_blob and _blob_id(target) != file.etag:
            forget(target)
            raise ObjectChanged(file.path)
        return str(whole.hexdigest())

    @cached_property
    def _info(self) -> Any:
        with self._explained():
            return self._api.repo_info(
                self._repository,
                revision=self._asked_revision,
                repo_type=self._type,
                files_metadata=True,
                timeout=_TIMEOUT_SECONDS,
            )

    @contextmanager
    def _get(self, path: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        url = hf_hub_url(
            self._repository,
            self._absolute(path),
            repo_type=self._type,
            revision=self.revision(),
            endpoint=self._endpoint,
        )
        with get_session().stream(
            "GET",
            url,
            headers=self._headers | {"Accept-Encoding": "identity"} | headers,
            follow_redirects=True,  # to the CDN; httpx2 drops the token on another host
            timeout=_TIMEOUT_SECONDS,
        ) as answer:
            yield answer

    def _check(self, answer: httpx2.Response, path: str) -> None:
        if answer.status_code == httpx2.codes.NOT_FOUND:
            raise ObjectMissing(path)
        if answer.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            raise self._denied(answer.status_code)
        answer.raise_for_status()

    @property
    def _is_single(self) -> bool:
        names = [found.rfilename for found in self._info.siblings or []]
        return bool(self._path) and self._path in names

    def _is_below(self, name: str) -> bool:
        return not self._path or name == self._path or name.startswith(f"{self._path}/")

    def _relative(self, name: str) -> str:
        if self._is_single:
            return name.rpartition("/")[2]
        return name.removeprefix(f"{self._path}/") if self._path else name

    def _absolute(self, path: str) -> str:
        if self._is_single:
            return self._path
        return f"{self._path}/{path}" if self._path else path

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except GatedRepoError as error:
            raise Waiting(
                Reason.ACCESS_DENIED,
                f"{self.uri} is gated at {self._endpoint}; accept its licence with the account of "
                f"the connection's {TOKEN_KEY}",
            ) from error
        except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
            raise self._not_found(error) from error
        except HfHubHTTPError as error:
            raise self._failed(error.response.status_code) from error
        except httpx2.HTTPStatusError as error:
            raise self._failed(error.response.status_code) from error
        except httpx2.HTTPError as error:
            what_to_do = "check the connection's endpoint and the network"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                what_to_do = "name the authority of its certificate as the connection's caBundle"
            raise Waiting(
                Reason.STORE_UNREACHABLE,
                f"no answer from {self._endpoint} for {self.uri} ({type(error).__name__}); "
                f"{what_to_do}",
            ) from error

    def _not_found(self, error: HfHubHTTPError) -> Waiting:
        # The hub hides private repositories: to a stranger they are not there (401 or 404).
        if error.response.status_code in (401, 403):
            return self._denied(error.response.status_code)
        at = f" at revision {self._asked_revision}" if self._asked_revision else ""
        return Waiting(
            Reason.SOURCE_NOT_FOUND,
            f"{self.uri}{at} is not at {self._endpoint}; correct the URI or the revision, or, if "
            f"it is private, give a connection whose Secret holds {TOKEN_KEY}",
        )

    def _failed(self, status: int) -> Waiting:
        if status in (401, 403):
            return self._denied(status)
        return Waiting(
            Reason.STORE_UNREACHABLE,
            f"{self._endpoint} answers {status} for {self.uri}; tried again later",
        )

    def _denied(self, status: int) -> Waiting:
        return Waiting(
            Reason.ACCESS_DENIED,
            f"{self._endpoint} refuses {self.uri} ({status}): it is private, gated or not there; "
            f"give a connection whose Secret holds a {TOKEN_KEY} that may read it",
        )


@cache
def _client_trust() -> ssl.SSLContext:
    """Whom the library's one client trusts: the image's authorities, and what is added."""
    trust = httpx2.create_ssl_context()
    set_client_factory(lambda: httpx2.Client(verify=trust, follow_redirects=True, timeout=None))
    return trust


def _blob_id(file: Path) -> str:
    """As git names a file's content; git holds small files only."""
    content = file.read_bytes()
    named = b"blob %d\0" % len(content) + content
    return hashlib.sha1(named, usedforsecurity=False).hexdigest()


def _beginning(file: Path, size: int) -> tuple[Any, int]:
    """The hash of what is there of a file of `size` bytes, and how much; nothing if it is all."""
    whole, there = hashlib.sha256(), 0
    if file.is_file() and 0 < file.stat().st_size < size:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                whole.update(block)
                there += len(block)
    return whole, there
