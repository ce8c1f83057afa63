"""The API server as an administrator sees it, past every proxy."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import aiohttp

from localcluster import pki

Json = dict[str, Any]
_APPLY, _MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


def tls() -> ssl.SSLContext:
    """Trusts the local cluster's authority and bears the administrator's certificate."""
    folder = pki.ensure()
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    return context


class AdminApi:
    """JSON over TLS."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "AdminApi":
        connector = aiohttp.TCPConnector(ssl=tls(), limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=3600)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def until_served(self, path: str) -> None:
        """A new CRD is established some moments before its objects can be listed."""
        deadline = asyncio.get_running_loop().time() + 30
        while (await self.ask("GET", path))[0] != 200:
            assert asyncio.get_running_loop().time() < deadline, f"{path} is not served"
            await asyncio.sleep(0.2)

    def stream(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A watch."""
        assert self._session is not None
        return self._session.get(self._server + path, read_bufsize=2**22)

    async def find(self, path: str) -> Json | None:
        """One object, or None."""
        status, found = await self.ask("GET", path)
        if status == 404:
            return None
        assert status == 200, (path, found)
        return found

    async def get(self, path: str) -> Json:
        """What must be there."""
        found = await self.find(path)
        assert found is not None, path
        return found

    async def items(self, path: str) -> list[Json]:
        """A list's items."""
        items: list[Json] = (await self.get(path))["items"]
        return items

    async def create(self, path: str, document: Mapping[str, Any]) -> Json:
        """POST."""
        status, found = await self.ask("POST", path, document)
        assert status < 300, (path, found)
        return found

    async def apply(
        self, path: str, document: Mapping[str, Any], dry_run: bool = False
    ) -> tuple[int, Json]:
        """Server-side apply as a user's tool does it; status and answer."""
        full = f"{path}?fieldManager=user&force=true" + "&dryRun=All" * dry_run
        return await self.ask("PATCH", full, document, _APPLY)

    async def merge(self, path: str, change: Mapping[str, Any]) -> Json | None:
        """Merge patch; None when it is gone or another one."""
        status, found = await self.ask("PATCH", path, change, _MERGE)
        if status in (404, 409):
            return None
        assert status < 300, (path, found)
        return found

    async def delete(self, path: str) -> None:
        """In the background."""
        status, found = await self.ask("DELETE", path)
        assert status < 300 or status == 404, (path, found)

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, Json]:
        """Status and answer of one request."""
        assert self._session is not None
        # An apply is read as YAML, which knows no escaped surrogates.
        data = None if body is None else json.dumps(body, ensure_ascii=False)
        async with self._session.request(
            method, self._server + path, data=data, headers={"Content-Type": content_type}
        ) as response:
            answer: Json = json.loads(await response.read())
            return response.status, answer
