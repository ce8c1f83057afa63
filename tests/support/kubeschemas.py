"""JSON schemas for kubeconform, from the OpenAPI documents of a running API server."""

import json
from pathlib import Path
from typing import Any

from kubectl import Kubectl

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/"
LOCATION = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"
"""What kubeconform makes of a group, a version and a kind; the core group is `v1`."""


def write_schemas(kubectl: Kubectl, folder: Path) -> int:
    """One file a kind, each whole in itself and closed: an unknown field is an error.

    Returns:
        How many kinds the server knows.
    """
    count = 0
    for path, entry in published(kubectl).items():
        if path.startswith(("api/", "apis/")):
            components = json.loads(kubectl("get", "--raw", entry["serverRelativeURL"]))
            schemas: Json = components.get("components", {}).get("schemas", {})
            definitions = {name: _closed(schema) for name, schema in schemas.items()}
            for name, schema in schemas.items():
                for kind in schema.get("x-kubernetes-group-version-kind", []):
                    group = kind["group"] or kind["version"]
                    target = f"{group}_{kind['version']}_{kind['kind'].lower()}.json"
                    whole = {"$ref": f"#/definitions/{name}", "definitions": definitions}
                    (folder / target).write_text(json.dumps(whole))
                    count += 1
    return count


def published(kubectl: Kubectl) -> dict[str, Json]:
    """By path of the API, where its schemas are; a new CRD's appear a moment after it is served."""
    paths: dict[str, Json] = json.loads(kubectl("get", "--raw", "/openapi/v3"))["paths"]
    return paths


def _closed(schema: Any) -> Any:
    """The same in JSON schema's words; objects with named properties take no others."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items() if key != "default"}
    if isinstance(reference := closed.get("$ref"), str):
        closed["$ref"] = reference.replace(_REFERENCE, "#/definitions/")
    free = closed.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(closed.get("properties"), dict) and not free:
        closed.setdefault("additionalProperties", False)
    return closed
