"""Equal intent is recognised in what the server made of it, and every real change is noticed."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.naming import ANNOTATION_SPEC_HASH
from lora_operator.intent import is_as_intended
from lora_operator.manifests.serving import with_spec_hash


def intent() -> dict[str, Any]:
    container = {
        "name": "engine",
        "image": "serve@sha256:1",
        "env": [{"name": "A", "value": ""}],
        "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"gpu": "1"}},
    }
    return with_spec_hash(
        {
            "metadata": {"name": "demo", "labels": {"a": "b"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [container]}}},
        }
    )


def live() -> dict[str, Any]:
    """The same as a server shows it: defaults, its own quantities, empty values dropped."""
    document = copy.deepcopy(intent())
    document["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    document["spec"]["minReadySeconds"] = 0
    document["status"] = {"replicas": 2}
    container = document["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}
    container["imagePullPolicy"] = "IfNotPresent"
    container["env"] = [{"name": "A"}]
    return document


def test_what_a_server_adds_and_how_it_writes_quantities_is_no_change() -> None:
    assert is_as_intended(live(), intent())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.replicas", 3),
        ("spec.template.spec.containers.0.image", "somebody/elses"),
        ("spec.template.spec.containers.0.resources.requests.cpu", "2"),
        ("spec.template.spec.containers.0.env", []),
        ("spec.template.spec.containers", [{}, {}]),
        ("metadata.labels.a", "c"),
        ("metadata.labels", {}),
    ],
)
def test_what_somebody_else_changed_is_noticed(path: str, value: object) -> None:
    document = live()
    *parents, last = path.split(".")
    node: Any = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[int(last) if isinstance(node, list) else last] = value
    assert not is_as_intended(document, intent())


def test_a_field_that_we_no_longer_want_is_noticed_by_the_hash() -> None:
    lesser = intent()
    del lesser["spec"]["replicas"]
    del lesser["metadata"]["annotations"][ANNOTATION_SPEC_HASH]
    assert not is_as_intended(live(), with_spec_hash(lesser))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(spec=st.dictionaries(st.text(max_size=3), JSON))
def test_every_document_is_as_it_intends_itself(spec: dict[str, Any]) -> None:
    document = with_spec_hash({"metadata": {}, "spec": spec})
    assert is_as_intended(copy.deepcopy(document), document)
