"""The Kubernetes API as the operator needs it: a small protocol and its one real client.

Objects are JSON dictionaries. Every call has a time limit, and what the API server answers is
mapped to a few typed errors; all else is raised as it is and makes the reconcile back off.

Traps: a uid in an apply to the status of a custom resource protects nothing, `resourceVersion`
does. 409 means two things, told apart by the answer's `reason`.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.dynamic.client import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from kubernetes.aio.dynamic.resource import Resource

from lora_api import API_VERSION, KIND, PLURAL
from lora_api.naming import FIELD_MANAGER
from lora_operator.yamltext import yaml_of

Json = dict[str, Any]

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_LOG_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=3)
_PAGE = 500
_APPLY = "application/apply-patch+yaml; charset=utf-8"
"""With the charset, for the client encodes the bare type itself, in a way that YAML cannot read."""
_MAX_LOG_BYTES = 64 * 1024


@dataclass(frozen=True)
class Kind:
    """A namespaced kind of object, as URLs and documents name it."""

    api_version: str
    kind: str
    plural: str


LORA_DEPLOYMENTS = Kind(API_VERSION, KIND, PLURAL)
JOBS = Kind("batch/v1", "Job", "jobs")
PODS = Kind("v1", "Pod", "pods")
DEPLOYMENTS = Kind("apps/v1", "Deployment", "deployments")
SERVICES = Kind("v1", "Service", "services")
EVENTS = Kind("v1", "Event", "events")
BUDGETS = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POLICIES = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
ACCESS_REVIEWS = Kind(
    "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"
)
CHILDREN = (JOBS, PODS, DEPLOYMENTS, SERVICES)


class NotFound(Exception):
    """There is no such object; for an apply with a resourceVersion: no longer."""


class AlreadyExists(Exception):
    """The name is taken."""


class Conflict(Exception):
    """The object is not what it was when it was read, or it is another one of that name."""


class Denied(Exception):
    """The API server refuses: a missing right, a quota, a policy or an invalid object.

    The message names verb, resource and the server's own words.
    """


class Unavailable(Exception):
    """The API server cannot answer now: out of reach, too slow, too busy or failing.

    Or it does not know who asks: the operator's account is gone, or its token has expired.
    """


class CallMeter(Protocol):
    """Whom the client tells of every call."""

    def called(self, verb: str, resource: str, code: int | None, seconds: float) -> None:
        """The API server answered; code None: it did not."""
        ...


class Cluster(Protocol):
    """What the operator asks of Kubernetes. All calls may raise `Denied` and `Unavailable`."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object, read live; None when there is none."""
        ...

    async def list_items(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Json]:
        """All objects of a kind in one namespace, or in all when it is empty."""
        ...

    async def create(self, kind: Kind, document: Json) -> Json:
        """POST. Raises `AlreadyExists`."""
        ...

    async def apply(self, kind: Kind, document: Json) -> Json:
        """Server-side apply of our full intent.

        Raises `NotFound` or `Conflict` where the document carries a resourceVersion or uid.
        """
        ...

    async def apply_status(self, kind: Kind, document: Json) -> Json:
        """Server-side apply to /status; the document must carry its resourceVersion."""
        ...

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json) -> Json:
        """Merge patch. Raises `NotFound`, and `Conflict` where it carries another uid."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete this very object, and in the background what it owns.

        Raises `NotFound`, and `Conflict` where the name is another object's now.
        """
        ...

    async def read_log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Last lines of a container's log; empty when they cannot be had, for whatever reason."""
        ...


class KubernetesCluster:
    """`Cluster` on the official client; paths are built here, so nothing is discovered.

    Args:
        client: The official one.
        meter: Told of every call.
        fence: Called before every write; it does not return to who may not write any more.
    """

    def __init__(
        self,
        client: ApiClient,
        meter: CallMeter | None = None,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._meter, self._fence = DynamicClient(client), meter, fence

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object, read live."""
        try:
            return await self._ask("get", kind, name, self._resource(kind).path(name, namespace))
        except NotFound:
            return None

    async def list_items(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Json]:
        """All pages of a list."""
        path = self._resource(kind).path(namespace=namespace)
        query: Json = {"limit": _PAGE, "label_selector": selector or None}
        page = await self._ask("list", kind, "", path, **query)
        items: list[Json] = page["items"]
        while token := page["metadata"].get("continue"):
            page = await self._ask("list", kind, "", path, _continue=token, **query)
            items += page["items"]
        return items

    async def create(self, kind: Kind, document: Json) -> Json:
        """POST."""
        name, namespace = _name_of(document)
        path = self._resource(kind).path(namespace=namespace)
        return await self._ask(
            "create", kind, name, path, body=document, field_manager=FIELD_MANAGER
        )

    async def apply(self, kind: Kind, document: Json) -> Json:
        """Server-side apply, taking fields over where somebody else owns them."""
        name, namespace = _name_of(document)
        path = self._resource(kind).path(name, namespace)
        return await self._apply(kind, name, path, document, kind.plural)

    async def apply_status(self, kind: Kind, document: Json) -> Json:
        """Server-side apply to the status subresource."""
        if not document["metadata"].get("resourceVersion"):
            raise ValueError("a status is only written over the version that was read")
        name, namespace = _name_of(document)
        path = self._resource(kind).path(name, namespace) + "/status"
        return await self._apply(kind, name, path, document, f"{kind.plural}/status")

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json) -> Json:
        """Merge patch."""
        path = self._resource(kind).path(name, namespace)
        return await self._ask(
            "patch", kind, name, path, body=change, field_manager=FIELD_MANAGER,
            content_type="application/merge-patch+json",
        )  # fmt: skip

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete one object by name and uid."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        path = self._resource(kind).path(name, namespace)
        await self._ask("delete", kind, name, path, body=body)

    async def read_log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Last lines of a log."""
        path = self._resource(PODS).path(pod, namespace) + "/log"
        query = [("container", container), ("tailLines", lines), ("limitBytes", _MAX_LOG_BYTES)]
        try:
            response = await self._request(
                "get", "pods/log", "get", path, query_params=query, _request_timeout=_LOG_TIMEOUT
            )
            text: str = await response.text(errors="replace")
        except (DynamicApiError, aiohttp.ClientError, TimeoutError):
            return ""  # the kubelet is out of reach, the container has no log, or we may not
        return text

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind; takes no right that a role must grant."""
        resource = self._resource(kind)
        path = f"/{resource.prefix}/{kind.api_version}"
        try:
            found = await self._ask("get", kind, "", path)
        except NotFound:
            return False
        return kind.plural in {served["name"] for served in found["resources"]}

    async def may(self, attributes: Mapping[str, str]) -> bool:
        """Whether we may do this, by the `resourceAttributes` of a review; anybody may ask it."""
        document = {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": dict(attributes)},
        }
        path = self._resource(ACCESS_REVIEWS).path()
        answer = await self._ask("create", ACCESS_REVIEWS, "", path, body=document)
        return bool(answer["status"]["allowed"])

    async def _apply(self, kind: Kind, name: str, path: str, document: Json, resource: str) -> Json:
        return await self._ask(
            "patch", kind, name, path, resource, body=yaml_of(document),
            field_manager=FIELD_MANAGER, force_conflicts=True, content_type=_APPLY,
        )  # fmt: skip

    async def _ask(
        self, verb: str, kind: Kind, name: str, path: str, resource: str = "", **arguments: Any
    ) -> Json:
        method = {"create": "post", "list": "get"}.get(verb, verb)
        if method != "get":
            self._fence()
        try:
            response = await self._request(
                verb, resource or kind.plural, method, path, _request_timeout=_TIMEOUT, **arguments
            )
            document: Json = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{verb} {kind.plural}: {error or 'no answer in time'}") from error
        except DynamicApiError as error:
            _raise_typed(error, verb, f"{kind.kind} {name}".strip(), kind.plural)
        return document

    async def _request(
        self, verb: str, resource: str, method: str, path: str, **arguments: Any
    ) -> Any:
        """One HTTP request; the verb is the one that RBAC knows."""
        began, code = time.monotonic(), None
        try:
            response = await self._api.request(method, path, serialize=False, **arguments)
            code = response.status
            return response
        except DynamicApiError as error:
            code = error.status
            raise
        finally:
            if self._meter:
                self._meter.called(verb, resource, code, time.monotonic() - began)

    def _resource(self, kind: Kind) -> Any:
        group, _, version = kind.api_version.rpartition("/")
        return Resource(
            prefix="apis" if group else "api", group=group, api_version=version, kind=kind.kind,
            namespaced=True, name=kind.plural, client=self._api,
        )  # fmt: skip


@asynccontextmanager
async def connect(
    meter: CallMeter | None = None, fence: Callable[[], None] = lambda: None
) -> AsyncIterator[KubernetesCluster]:
    """The cluster of KUBECONFIG, else the one around this pod, else of the current context."""
    configuration = Configuration()
    if runs_in_pod(os.environ):
        load_incluster_config(client_configuration=configuration)
    else:
        # Without a file the library takes what KUBECONFIG was when it was imported.
        files = os.environ.get("KUBECONFIG") or None
        await load_kube_config(config_file=files, client_configuration=configuration)
    async with ApiClient(configuration) as client:
        yield KubernetesCluster(client, meter, fence)


def runs_in_pod(environment: Mapping[str, str]) -> bool:
    """Whether the pod's service account is to be used; an explicit KUBECONFIG comes first."""
    return not environment.get("KUBECONFIG") and SERVICE_ACCOUNT_TOKEN.exists()


def _name_of(document: Json) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata["name"], metadata["namespace"]


def _raise_typed(error: DynamicApiError, verb: str, what: str, resource: str) -> NoReturn:
    status = _status_of(error)
    message = " ".join(str(status.get("message") or error.reason).split())[:600]
    said = f"{verb} {what}: {message}"
    if error.status == 404:
        raise NotFound(said) from None
    if error.status == 409:
        raise (AlreadyExists if status.get("reason") == "AlreadyExists" else Conflict)(
            said
        ) from None
    if error.status == 422 and _is_about_another_object(status):
        raise Conflict(said) from None
    if error.status in (403, 422):
        raise Denied(f'the API server denies "{verb}" of {resource}: {message}') from None
    if error.status == 401:
        raise Unavailable(
            f"401 {said}: the API server does not accept the operator's token; see that its "
            "service account is still there"
        ) from None
    if error.status in (410, 429) or error.status >= 500:
        raise Unavailable(f"{error.status} {said}") from None
    raise error


def _is_about_another_object(status: Json) -> bool:
    """A patch that carries a uid, of a name that another object has now."""
    causes = (status.get("details") or {}).get("causes") or ()
    return any(cause.get("field") == "metadata.uid" for cause in causes)


def _status_of(error: DynamicApiError) -> Json:
    """The `Status` document of an answer; empty when it is none (a proxy's page)."""
    try:
        document = json.loads(error.body)
    except (TypeError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
