"""Every field of the spec, walked from the CRD's schema: emptied, removed, huge, strange.

The API server refuses a change, or the models read back what was declared, or refuse it in words of
their own, which the operator tells as `InvalidSpec`.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from everyfield import STRANGE, fields_of, told, with_change
from localcluster import pki
from localcluster.controlplane import ControlPlane
from localcluster.kubeapi import KubeApi
from lora_api.spec import parse_spec

pytestmark = pytest.mark.integration
Json = dict[str, Any]
SAMPLE = Path(__file__).parents[2] / "crds/samples/full.yaml"
OBJECTS = "/apis/lora-operator.dev/v1alpha1/namespaces/default/loradeployments"


FULL: Json = yaml.safe_load(SAMPLE.read_text())
FIELDS = fields_of(FULL["spec"])


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
            document = with_change(FULL, path, value)
            code, body = api.raw("POST", f"{OBJECTS}?dryRun=All&fieldValidation=Strict", document)
            answer = json.loads(body)
            with subtests.test(told(path, value)):
                assert code in (201, 400, 413, 422), answer
                refused += code != 201
                admitted += code == 201
                if code == 201:
                    assert declared_is_read(document["spec"], answer["spec"])
                    with contextlib.suppress(ValidationError):  # told as InvalidSpec
                        parse_spec(answer["spec"])
                else:
                    assert answer["message"]
    code, body = api.raw("POST", f"{OBJECTS}?dryRun=All&fieldValidation=Strict", FULL)
    assert code == 201, "set back, all is as it was"
    assert admitted
    assert refused or section == "suspend", "a boolean that may be left out has no wrong value"
