"""The schema of one profile in the chart's values, from the model: closed, and without prose.

Helm reads one file and refuses what does not fit it before anything is installed.
"""

from typing import Any

from lora_api.profile import Profile

_KEPT = frozenset(
    {
        "type", "enum", "pattern", "required", "additionalProperties", "minimum", "maximum",
        "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    }
)  # fmt: skip


def profile_schema() -> dict[str, Any]:
    """JSON Schema without references; a quantity may be a whole number, as YAML writes it."""
    document = Profile.model_json_schema(by_alias=True)
    return _plain(document, document["$defs"])


def _plain(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = definitions[node["$ref"].rpartition("/")[2]]
        else:
            (node,) = (b for b in node["anyOf"] if b.get("type") != "null")
    plain: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            plain[key] = {name: _plain(field, definitions) for name, field in value.items()}
        elif key in ("items", "propertyNames") or (key in _KEPT and isinstance(value, dict)):
            plain[key] = _plain(value, definitions)
        elif key in _KEPT:
            plain[key] = value
    if node.get("x-kubernetes-int-or-string"):
        plain["type"] = ["string", "integer"]
    return plain
