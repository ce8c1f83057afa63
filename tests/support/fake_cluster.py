"""A `Cluster` in memory that records writes and answers as the test says. Not a Kubernetes."""

import copy
import itertools
from typing import Any

from lora_operator.cluster import AlreadyExists, Conflict, Kind, NotFound

Json = dict[str, Any]
Address = tuple[str, str, str]


class FakeCluster:
    """Objects by (plural, namespace, name).

    Attributes:
        writes: (verb, plural, name) in their order.
        refusals: What to raise instead, by (verb, plural).
        logs: By pod.
        applied: Documents as they were applied.
    """

    def __init__(self) -> None:
        self.objects: dict[Address, Json] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.refusals: dict[tuple[str, str], Exception] = {}
        self.logs: dict[str, str] = {}
        self.applied: list[Json] = []
        self._versions = itertools.count(1)

    def add(self, kind: Kind, document: Json) -> Json:
        """Put an object there, as somebody else would."""
        metadata = {"uid": f"uid-{next(self._versions)}", **document["metadata"]}
        stored = copy.deepcopy({**document, "metadata": metadata})
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[kind.plural, metadata["namespace"], metadata["name"]] = stored
        return stored

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        self._refuse("get", kind)
        return copy.deepcopy(self.objects.get((kind.plural, namespace, name)))

    async def list_items(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Json]:
        self._refuse("list", kind)
        key, _, value = selector.partition("=")
        return [
            copy.deepcopy(document)
            for (plural, place, _), document in self.objects.items()
            if plural == kind.plural
            and place == (namespace or place)
            and (not key or document["metadata"].get("labels", {}).get(key) == value)
        ]

    async def create(self, kind: Kind, document: Json) -> Json:
        self._write("create", kind, document["metadata"]["name"])
        if self._address(kind, document) in self.objects:
            raise AlreadyExists(document["metadata"]["name"])
        return self.add(kind, document)

    async def apply(self, kind: Kind, document: Json) -> Json:
        self._write("apply", kind, document["metadata"]["name"])
        self.applied.append(copy.deepcopy(document))
        before = self.objects.get(self._address(kind, document), {"metadata": {}})
        return self.add(kind, {**document, "metadata": before["metadata"] | document["metadata"]})

    async def apply_status(self, kind: Kind, document: Json) -> Json:
        self._write("status", kind, document["metadata"]["name"])
        live = self.objects.get(self._address(kind, document))
        if live is None:
            raise NotFound(document["metadata"]["name"])
        if live["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        return self.add(kind, {**live, "status": document["status"]})

    async def patch(self, kind: Kind, namespace: str, name: str, change: Json) -> Json:
        self._write("patch", kind, name)
        live = self.objects.get((kind.plural, namespace, name))
        if live is None:
            raise NotFound(name)
        for key in ("uid", "resourceVersion"):
            if change.get("metadata", {}).get(key, live["metadata"][key]) != live["metadata"][key]:
                raise Conflict(f"{name} has another {key}")
        return copy.deepcopy(self.add(kind, _merged(live, change)))

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        self._write("delete", kind, name)
        live = self.objects.get((kind.plural, namespace, name))
        if live is None:
            raise NotFound(name)
        if live["metadata"]["uid"] != uid:
            raise Conflict(name)
        del self.objects[kind.plural, namespace, name]

    async def read_log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        return "\n".join(self.logs.get(pod, "").splitlines()[-lines:])

    def _write(self, verb: str, kind: Kind, name: str) -> None:
        self._refuse(verb, kind)
        self.writes.append((verb, kind.plural, name))

    def _refuse(self, verb: str, kind: Kind) -> None:
        if error := self.refusals.get((verb, kind.plural)):
            raise error

    @staticmethod
    def _address(kind: Kind, document: Json) -> Address:
        return kind.plural, document["metadata"]["namespace"], document["metadata"]["name"]


def _merged(document: Json, change: Json) -> Json:
    """RFC 7386, without the removal of keys."""
    merged = dict(document)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
