"""Every field of the spec, walked from the CRD's schema: emptied, removed, huge, strange.

The API server refuses a change, or the models read back what was declared, or refuse it in words of
their own, which the operator tells as `InvalidSpec`.
"""

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from localcluster import pki
from localcluster.controlplane import ControlPlane
from localcluster.kubeapi import KubeApi
from lora_api.spec import parse_spec

pytestmark = pytest.mark.integration
Json = dict[str, Any]
Path_ = tuple[str | int, ...]
CRDS = Path(__file__).parents[2] / "crds"
OBJECTS = "/apis/lora-operator.dev/v1alpha1/namespaces/default/loradeployments"
REMOVED = object()
STRANGE: dict[str, list[object]] = {
    "string": ["", "x" * 70_000, "größe-模型-\u202e\U0001f600", " ", REMOVED, None],
    "integer": [0, -1, 2**31, 2**63 - 1, 10**30, REMOVED, None],
    "boolean": [True, False, REMOVED, None],
    "array": [[], [{}], ["x"] * 2000, REMOVED, None],
    "object": [{}, {"größe": "模型"}, REMOVED, None],
}


def full() -> Json:
    document: Json = yaml.safe_load((CRDS / "samples/full.yaml").read_text())
    return document


def fields() -> dict[Path_, str]:
    """Path -> type of every field of the schema; of a list its first item, if it has any."""
    crd = yaml.safe_load((CRDS / "loradeployments.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return dict(_walk(schema, ("spec",), full()["spec"]))


def _walk(schema: Json, path: Path_, found: Any) -> Iterator[tuple[Path_, str]]:
    yield path, schema.get("type", "string")
    for name, inner in schema.get("properties", {}).items():
        yield from _walk(inner, (*path, name), (found or {}).get(name))
    if found and schema.get("type") == "array":
        yield from _walk(schema["items"], (*path, 0), found[0])


FIELDS = fields()


def with_change(path: Path_, value: object) -> Json:
    document = full()
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


def declared_is_read(declared: Any, read: Any) -> bool:
    """Whether the object holds all that was declared; null stands for not given."""
    if isinstance(declared, dict):
        return isinstance(read, dict) and all(
            value is None or declared_is_read(value, read.get(key))
            for key, value in declared.items()
        )
    if isinstance(declared, list):
        return len(declared) == len(read or ()) and all(map(declared_is_read, declared, read or ()))
    return bool(declared == read)


def test_the_schema_is_walked_whole() -> None:
    assert len(FIELDS) > 100
    assert {"string", "integer", "array", "object"} <= set(FIELDS.values()) <= set(STRANGE)


@pytest.mark.fault("F30")
@pytest.mark.parametrize("section", sorted({path[1] for path in FIELDS if len(path) > 1}, key=str))
def test_a_strange_value_is_refused_or_read_as_declared_in(
    control_plane: ControlPlane, section: str, subtests: pytest.Subtests
) -> None:
    api = KubeApi(control_plane.server, pki.ensure(), timeout=30)
    admitted = refused = 0
    for path, kind in FIELDS.items():
        if path[1:2] != (section,):
            continue
        for value in STRANGE[kind]:
            document = with_change(path, value)
            code, body = api.raw("POST", f"{OBJECTS}?dryRun=All&fieldValidation=Strict", document)
            answer = json.loads(body)
            with subtests.test(f"{'.'.join(map(str, path))} = {value!r:.30}"):
                assert code in (201, 400, 413, 422), answer
                refused += code != 201
                admitted += code == 201
                if code == 201:
                    assert declared_is_read(document["spec"], answer["spec"])
                    with contextlib.suppress(ValidationError):  # told as InvalidSpec
                        parse_spec(answer["spec"])
                else:
                    assert answer["message"]
    code, body = api.raw("POST", f"{OBJECTS}?dryRun=All&fieldValidation=Strict", full())
    assert code == 201, "set back, all is as it was"
    assert admitted
    assert refused or section == "suspend", "a boolean that may be left out has no wrong value"
