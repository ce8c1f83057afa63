"""What the operator writes, by names that are the same in every run."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lora_api.naming import ANNOTATION_INPUT_HASH, LABEL_RELEASE, LABEL_STAGE

Json = dict[str, Any]
_PATH = re.compile(
    r"^/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>[^/]+))?$"
)


class Point(NamedTuple):
    """One write of a trace: the n-th of its kind."""

    verb: str
    plural: str
    label: str
    nth: int

    def __str__(self) -> str:
        return f"{self.verb} {self.plural} {self.label} #{self.nth}"


class Address(NamedTuple):
    """What a path of the API server names."""

    plural: str
    namespace: str
    name: str
    part: str

    @classmethod
    def of(cls, path: str) -> "Address":
        """Parse a path; unknown ones have an empty plural."""
        found = _PATH.match(urlsplit(path).path)
        if not found:
            return cls("", "", "", "")
        parts = found.groupdict(default="")
        return cls(parts["plural"], parts["namespace"], parts["name"], parts["part"])


@dataclass(frozen=True)
class Write:
    """One request that changes something.

    Attributes:
        point: Which one it is.
        document: Its body.
        path: With its query.
        address: What it names; of a creation, with the name from the body.
    """

    point: Point
    document: Json
    path: str
    address: Address


@dataclass
class Naming:
    """Gives the writes of one case their points."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)

    def write(self, method: str, path: str, body: bytes, content_type: str) -> Write:
        """Name a request."""
        document: Json = json.loads(body) if body else {}
        address = Address.of(path)
        if not address.name:
            address = address._replace(name=document.get("metadata", {}).get("name", ""))
        verb = {"POST": "create", "DELETE": "delete"}.get(method, "")
        verb = verb or ("apply" if "apply" in content_type else "patch")
        key = verb, address.plural, self._label(verb, address, document)
        self.counts[key] += 1
        return Write(Point(*key, self.counts[key]), document, path, address)

    def forget(self, point: Point) -> None:
        """The write did not reach the server: its next try is the same one."""
        self.counts[point[:3]] -= 1

    def _label(self, verb: str, address: Address, document: Json) -> str:
        if address.part == "status":
            return told(document["status"])
        if address.plural == "events":
            return f"{document['reason']}" if verb == "create" else "again"
        known = address.plural, address.name
        if known not in self.labels or verb == "apply":
            self.labels[known] = self._of_child(address, document)
        return self.labels[known]

    def _of_child(self, address: Address, document: Json) -> str:
        metadata = document.get("metadata", {})
        if address.plural == "jobs":
            stage = metadata.get("labels", {}).get(LABEL_STAGE, "?")
            inputs = metadata.get("annotations", {}).get(ANNOTATION_INPUT_HASH, "")
            seen = self.hashes.setdefault(stage, [])
            if inputs not in seen:
                seen.append(inputs)
            return f"{stage} {'abcdefgh'[seen.index(inputs)]}"
        release = metadata.get("labels", {}).get(LABEL_RELEASE, "")
        if address.plural == "services":
            release = document["spec"]["selector"][LABEL_RELEASE]
        return f"release {release}"


def told(status: Json) -> str:
    """What a status says, in short."""
    stages: list[Json] = status.get("stages") or [{}]
    last = stages[-1]
    conditions: list[Json] = status.get("conditions") or []
    ready = next((c for c in conditions if c["type"] == "Ready"), {})
    return (
        f"{status.get('phase')} {last.get('name')}:{last.get('state')} "
        f"Ready={ready.get('status')}/{ready.get('reason')}"
    )
