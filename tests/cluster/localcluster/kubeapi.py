"""A Kubernetes client of one screen: JSON over TLS with the admin certificate.

Enough for readiness, for the node's status and for the few objects the cluster itself needs.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localcluster.console import ClusterError

Json = dict[str, Any]


class KubeApi:
    """Talks to one API server. Every call opens a connection: no state to go stale over a crash."""

    def __init__(self, server: str, pki: Path, *, timeout: float = 5) -> None:
        parts = urlsplit(server)
        self._host, self._port = str(parts.hostname), int(parts.port or 443)
        self._timeout = timeout
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def raw(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body; raises OSError when there is no answer."""
        link = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout, context=self._tls
        )
        try:
            data = None if body is None else json.dumps(body)
            link.request(method, path, data, {"Content-Type": content_type})
            answer = link.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            link.close()

    def get(self, path: str) -> Json | None:
        """The object, or None if there is none."""
        status, body = self.raw("GET", path)
        if status == 404:
            return None
        return _checked("GET", path, status, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        kind = "application/merge-patch+json"
        return _checked("PATCH", path, *self.raw("PATCH", path, body, kind))

    def apply(self, path: str, body: Mapping[str, Any]) -> Json:
        """Server-side apply: creates or corrects."""
        full = f"{path}?fieldManager=localcluster&force=true"
        answer = self.raw("PATCH", full, body, "application/apply-patch+yaml")
        return _checked("APPLY", path, *answer)

    def ready(self) -> bool:
        """Whether the API server says that it serves."""
        try:
            return self.raw("GET", "/readyz")[0] == 200
        except OSError:
            return False


def _checked(verb: str, path: str, status: int, body: bytes) -> Json:
    if status >= 300:
        raise ClusterError(f"{verb} {path}: {status} {body.decode(errors='replace')[:500]}")
    parsed: Json = json.loads(body)
    return parsed
