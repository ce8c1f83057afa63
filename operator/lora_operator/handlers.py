"""kopf, for watches only: each event names an object to look at, and nothing else happens here.

No handler changes state, so kopf writes no annotation and no finalizer anywhere, which
`assert_watches_only` holds at start. What kopf knows is never believed: a look reads all live.

Trap: kopf ends the process when a watch fails for good (410, an ERROR event); a restart is cheap.
"""

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import kopf

from lora_api import GROUP, PLURAL, VERSION
from lora_api.naming import LABEL_NAME
from lora_operator.cluster import CHILDREN, Kind, runs_in_pod
from lora_operator.reconcile import ObjectKey
from lora_operator.watchage import WatchAge

Labels = Mapping[str, str]
Saw = Callable[[str], None]

FINALIZER = f"{GROUP}/kopf"
"""Never set, since no handler needs one; kopf's own would name another project."""


class Enqueue(Protocol):
    """Takes a key into the queue."""

    def __call__(self, key: ObjectKey, *, can_wait: bool = False) -> None:
        """Where it can wait, others go first."""
        ...


class JitteredBackoffs:
    """Waits between failed requests of a watch: for ever, at most 30 s, with full jitter."""

    def __iter__(self) -> Iterator[float]:
        """From one second, doubling."""
        for power in itertools.count():
            yield random.uniform(0.5, min(30.0, 2.0 ** min(power, 5)))  # noqa: S311 - no secret


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf without what it would write, and patient with an API server that restarts."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True  # no right to list CRDs and namespaces is needed
    settings.persistence.finalizer = FINALIZER
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = JitteredBackoffs()
    settings.watching.connect_timeout = 5
    settings.watching.client_timeout = 600
    settings.watching.reconnect_backoff = 1
    settings.watching.chunk_size = 500
    settings.execution.max_workers = 4
    for kind in CHILDREN:
        settings.watching.label_selectors[_selector(kind)] = LABEL_NAME
    return settings


def watches(
    enqueue: Enqueue,
    age: WatchAge[ObjectKey] | None = None,
    saw: Saw = lambda resource: None,
) -> kopf.OperatorRegistry:
    """The registry: one event handler a kind, each puts the object's key into the queue.

    Args:
        enqueue: Takes the key.
        age: Learns what the watch of our kind tells.
        saw: Told the resource of each event.
    """
    age = age or WatchAge[ObjectKey]()
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def lora_deployment_changed(
        namespace: str | None,
        name: str,
        type: str | None,
        meta: Mapping[str, Any],
        status: Mapping[str, Any],
        **_: Any,
    ) -> None:
        key = ObjectKey(namespace or "", name)
        saw(PLURAL)
        age.tell(key, str(meta.get("resourceVersion")))
        enqueue(key, can_wait=type is None and _is_settled(meta, status))

    async def child_changed(
        namespace: str | None,
        labels: Labels,
        type: str | None,
        resource: kopf.Resource,
        **_: Any,
    ) -> None:
        saw(resource.plural)
        if owner := labels.get(LABEL_NAME):
            # A first listing tells of every child; those of an unsettled object come with it.
            enqueue(ObjectKey(namespace or "", owner), can_wait=type is None)

    for kind in CHILDREN:
        kopf.on.event(*_selector(kind), registry=registry, id=kind.plural)(child_changed)
    assert_watches_only(registry)
    return registry


def _is_settled(meta: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether the object served what it asks for when it was last looked at."""
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    ready = next((c for c in conditions if c.get("type") == "Ready"), {})
    is_of_now = ready.get("observedGeneration") == meta.get("generation")
    return is_of_now and ready.get("status") == "True"


def assert_watches_only(registry: kopf.OperatorRegistry) -> None:
    """Kopf has nothing to change: no state-changing handler, timer, index or webhook.

    Raises:
        RuntimeError: It has.
    """
    others = ("_changing", "_spawning", "_indexing", "_webhooks")
    found = [h.id for part in others for h in getattr(registry, part).get_all_handlers()]
    if found:
        raise RuntimeError(f"kopf would write to objects for these handlers: {found}")


def _selector(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """As `cluster.connect` logs in. Called again when a token has expired."""
    if runs_in_pod(os.environ):
        return kopf.login_with_service_account(**arguments)
    return kopf.login_with_kubeconfig(**arguments)
