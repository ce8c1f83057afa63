"""Everything that a run leaves behind, searched for values that must not be in it."""

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from kubectl import Kubectl, KubectlError

Left = tuple[str, bytes]
"""Where something lies, and what lies there."""


def leaks(canaries: Iterable[str], left: Iterable[Left]) -> list[str]:
    """Where a canary lies, in plain or encoded, by the place of each."""
    forms = [form for canary in canaries for form in _forms(canary)]
    return [place for place, content in left if any(form in content for form in forms)]


def _forms(canary: str) -> set[bytes]:
    """A value as it is, percent-encoded, and in base64 wherever it stands in what was encoded."""
    plain = canary.encode()
    encoded = set()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + plain)
        # The first and the last characters hold bits of what stands before and after, too.
        encoded.add(text[4 if before else 0 : -4])
    assert all(len(form) > 4 for form in encoded), f"{canary} is too short to be looked for"
    return {plain, quote(canary, safe="").encode(), *encoded}


def left_in_namespace(kubectl: Kubectl) -> Iterator[Left]:
    """Every object of every kind but Secrets, with spec and status; and what all pods have said."""
    listed = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    kinds = ",".join(kind for kind in listed if kind != "secrets")
    for item in json.loads(kubectl("get", kinds, "-o", "json"))["items"]:
        yield f"{item['kind']}/{item['metadata']['name']}", json.dumps(item).encode()
    yield from logs_of(kubectl)


def logs_of(kubectl: Kubectl) -> Iterator[Left]:
    """What the containers of all pods have said, those that were restarted too."""
    for pod in kubectl.items("pods"):
        name, statuses = pod["metadata"]["name"], pod.get("status", {})
        for status in [
            *statuses.get("initContainerStatuses", []), *statuses.get("containerStatuses", []),
        ]:  # fmt: skip
            container = status["name"]
            for former in ("--previous=true",) if status["restartCount"] else ():
                yield f"log {name}/{container} before", _log(kubectl, name, container, former)
            yield f"log {name}/{container}", _log(kubectl, name, container)


def _log(kubectl: Kubectl, pod: str, *options: str) -> bytes:
    try:
        return kubectl("logs", pod, "-c", *options).encode()
    except KubectlError:  # the container never started, or is gone
        return b""


def left_in_bucket(client: Any, uri: str) -> Iterator[Left]:
    """Name, metadata and bytes of every object below `s3://BUCKET/PREFIX`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for found in page.get("Contents", []):
            answer = client.get_object(Bucket=bucket, Key=found["Key"])
            described = json.dumps([found["Key"], answer["Metadata"]]).encode()
            yield found["Key"], described + answer["Body"].read()
