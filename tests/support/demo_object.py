"""The demo's objects, which users run first, for a test's own bucket and name."""

import json
from typing import Any

import yaml

from testbed import E2E_BUCKET, E2E_SECRET, REPOSITORY, Testbed

Json = dict[str, Any]


def demo_object(testbed: Testbed, name: str, store: str) -> Json:
    """examples/demo.yaml with our bucket's sources, ready to be changed and applied.

    Args:
        name: Its name; the namespace is left to who applies it.
        store: `artifact.uri`.
    """
    document = _with_our_sources("demo.yaml", name)
    spec = document["spec"]
    server = {"endpoint": testbed.s3_endpoint, "secretRef": {"name": E2E_SECRET}}
    spec["connections"] = [{"name": "local", "s3": server}]
    spec["artifact"]["uri"] = store
    return document


def small_object(name: str) -> Json:
    """examples/demo-small.yaml, which takes its bucket from a profile, with our sources."""
    return _with_our_sources("demo-small.yaml", name)


def _with_our_sources(example: str, name: str) -> Json:
    document: Json = yaml.safe_load((REPOSITORY / "examples" / example).read_text())
    text = json.dumps(document["spec"]).replace("s3://demo/", f"s3://{E2E_BUCKET}/")
    return document | {"metadata": {"name": name}, "spec": json.loads(text)}
