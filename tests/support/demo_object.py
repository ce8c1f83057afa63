"""examples/demo.yaml, the object that users run first, for a test's own bucket and name."""

import json
from typing import Any

import yaml

from testbed import E2E_BUCKET, E2E_SECRET, REPOSITORY, Testbed


def demo_object(testbed: Testbed, name: str, store: str) -> dict[str, Any]:
    """The object with our bucket's sources, ready to be changed and applied.

    Args:
        name: Its name; the namespace is left to who applies it.
        store: `artifact.uri`.
    """
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / "examples/demo.yaml").read_text())
    text = json.dumps(document["spec"]).replace("s3://demo/", f"s3://{E2E_BUCKET}/")
    spec = json.loads(text)
    server = {"endpoint": testbed.s3_endpoint, "secretRef": {"name": E2E_SECRET}}
    spec["connections"] = [{"name": "local", "s3": server}]
    spec["artifact"]["uri"] = store
    return document | {"metadata": {"name": name}, "spec": spec}
