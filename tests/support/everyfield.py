"""Every field of the spec, walked from the CRD's schema, and strange values for each type."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
FieldPath = tuple[str | int, ...]
CRD = Path(__file__).parents[2] / "crds/loradeployments.yaml"
REMOVED = object()
STRANGE: Mapping[str, list[object]] = {
    "string": ["", "x" * 70_000, "größe-模型-\u202e\U0001f600", " ", REMOVED, None],
    "integer": [0, -1, 2**31, 2**63 - 1, 10**30, REMOVED, None],
    "boolean": [True, False, REMOVED, None],
    "array": [[], [{}], ["x"] * 2000, REMOVED, None],
    "object": [{}, {"größe": "模型"}, REMOVED, None],
}


def fields_of(spec: Json) -> dict[FieldPath, str]:
    """Path -> type of every field of the schema; of a list the spec's first item, if any."""
    crd = yaml.load(CRD.read_text(), yaml.CSafeLoader)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return dict(_walk(schema, ("spec",), spec))


def _walk(schema: Json, path: FieldPath, found: Any) -> Iterator[tuple[FieldPath, str]]:
    yield path, schema.get("type", "string")
    for name, inner in schema.get("properties", {}).items():
        yield from _walk(inner, (*path, name), (found or {}).get(name))
    if found and schema.get("type") == "array":
        yield from _walk(schema["items"], (*path, 0), found[0])


def with_change(document: Json, path: FieldPath, value: object) -> Json:
    """A copy of the document with another value at the path."""
    document = copy.deepcopy(document)
    node: Any = document
    for key in path[:-1]:
        if not isinstance(key, int) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    if value is REMOVED:
        node.pop(path[-1], None) if isinstance(node, dict) else node.pop(int(path[-1]))
    else:
        node[path[-1]] = copy.deepcopy(value)
    return document


def told(path: FieldPath, value: object) -> str:
    """A change for people."""
    shown = "removed" if value is REMOVED else f"= {value!r:.30}"
    return f"{'.'.join(map(str, path))} {shown}"
