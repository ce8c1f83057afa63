"""What `kubectl get -o json` says, without a process for each question.

Tests poll: starting kubectl ten times a second takes more of a small machine than what is tested.
"""

import base64
import ssl
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

Json = dict[str, Any]
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Unanswered(Exception):
    """The API server says no, or nothing; the message is its own."""


class _Kind(NamedTuple):
    """A kind of object, as documents and URLs name it."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        group = "apis" if "/" in self.api_version else "api"
        place = ("namespaces", namespace) if self.is_namespaced else ()
        parts = (group, self.api_version, *place, self.plural, name)
        return "/" + "/".join(part for part in parts if part)


class ApiReads:
    """One API server, asked as the first user of a kubeconfig that holds a certificate."""

    def __init__(self, kubeconfig: str) -> None:
        document = yaml.safe_load(kubeconfig)
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._client = httpx.Client(
            base_url=cluster["server"],
            verify=_tls(cluster["certificate-authority-data"], user),
            timeout=60,
            trust_env=False,
        )
        self._kinds: dict[str, _Kind] = {}

    def get(self, kind: str, namespace: str, name: str) -> Json:
        """One object.

        Raises:
            Unanswered: There is none, or no answer.
        """
        return _shown(self._ask(self._kind(kind).path(namespace, name)))

    def items(self, kinds: str, namespace: str, selector: str = "") -> list[Json]:
        """All objects of some kinds, their names joined by commas.

        Raises:
            Unanswered: There is no such kind, or no answer.
        """
        found = []
        for kind in map(self._kind, kinds.split(",")):
            listed = self._ask(kind.path(namespace), {"labelSelector": selector})
            common = {"apiVersion": kind.api_version, "kind": kind.kind}
            found += [_shown(common | item) for item in listed["items"]]
        return found

    def _kind(self, name: str) -> _Kind:
        if name not in self._kinds:  # a CRD may be new
            self._kinds = self._discovered()
        if name not in self._kinds:
            raise Unanswered(f'the server doesn\'t have a resource type "{name}"')
        return self._kinds[name]

    def _discovered(self) -> dict[str, _Kind]:
        """By every name that kubectl takes; of two groups with one name the first, as there."""
        found: dict[str, _Kind] = {}
        for root in ("/api", "/apis"):
            for group in self._ask(root, accept=_DISCOVERY)["items"]:
                prefix = f"{group['metadata']['name']}/" if root == "/apis" else ""
                for version in group["versions"]:
                    for resource in version.get("resources", ()):
                        kind = _Kind(
                            prefix + version["version"], resource["responseKind"]["kind"],
                            resource["resource"], resource["scope"] == "Namespaced",
                        )  # fmt: skip
                        names = (resource["resource"], resource.get("singularResource", ""))
                        for name in (*names, *resource.get("shortNames", ())):
                            found.setdefault(name, kind)
        return found

    def _ask(
        self, path: str, parameters: Mapping[str, str] | None = None, accept: str = ""
    ) -> Json:
        headers = {"Accept": accept or "application/json"}
        request = self._client.build_request("GET", path, params=parameters, headers=headers)
        try:
            answer = self._sent(request)
        except httpx.TransportError as error:
            raise Unanswered(f"{path}: {error!r}") from error
        document: Json = answer.json() if answer.content else {}
        if answer.is_error:
            raise Unanswered(str(document.get("message", answer.status_code)))
        return document

    def _sent(self, request: httpx.Request) -> httpx.Response:
        """A connection from before the server's restart fails once."""
        try:
            return self._client.send(request)
        except httpx.TransportError:
            return self._client.send(request)


def reads_by(kubeconfig: Path) -> ApiReads:
    """Those of a kubeconfig, which may be written anew for another server."""
    return _reads(kubeconfig.read_text())


_reads = lru_cache(maxsize=8)(ApiReads)


def _shown(document: Json) -> Json:
    """As kubectl shows it."""
    document["metadata"].pop("managedFields", None)
    return document


def _tls(authority: str, user: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
    with tempfile.NamedTemporaryFile() as file:  # the library takes only files
        for part in ("client-certificate-data", "client-key-data"):
            file.write(base64.b64decode(user[part]))
        file.flush()
        context.load_cert_chain(file.name)
    return context
