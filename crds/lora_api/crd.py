"""The CustomResourceDefinition, generated from the models.

pydantic writes JSON Schema; a CRD wants a *structural* schema: no references, no `null` branches,
no titles, no `additionalProperties: false` (the server prunes unknown fields, `kubectl` warns).
A default on an object becomes `{}`: the server then fills the defaults of its fields, which stand
once, beside them.
"""

from typing import Any

from lora_api import API_VERSION, GROUP, KIND, PLURAL, SHORT_NAME, SINGULAR, VERSION
from lora_api.base import ApiModel
from lora_api.naming import MAX_NAME
from lora_api.spec import ObjectSpec
from lora_api.status import Status

Schema = dict[str, Any]

_COLUMNS = (
    ("Phase", ".status.phase", 0, "Where it is, in one word."),
    ("Gates", ".status.summary.gates", 0, "Enforced gates passed / judged."),
    ("Quality", ".status.summary.quality", 0, "Task perplexity, quantized against merged."),
    ("Size", ".status.summary.size", 0, "Weight bytes, quantized against base."),
    ("Ready", '.status.conditions[?(@.type=="Ready")].status', 0, "Is what is asked for serving?"),
    ("Speed", ".status.summary.speed", 1, "Output tokens per second, quantized against base."),
    ("Release", ".status.summary.release", 1, "The release that serves."),
    ("Reason", ".status.summary.reason", 1, "Why it is not ready."),
)

_SCALE = {
    "specReplicasPath": ".spec.serving.replicas",
    "statusReplicasPath": ".status.serving.replicas",
    "labelSelectorPath": ".status.serving.selector",
}


def structural_schema(model: type[ApiModel]) -> Schema:
    """The model's schema in the form that CustomResourceDefinitions take."""
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}))


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _resolved(node, definitions)
    result: Schema = {}
    for key, value in node.items():
        result |= _keyword(key, value, node, definitions)
    if result.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return result


def _keyword(key: str, value: Any, node: Schema, definitions: dict[str, Schema]) -> Schema:
    """What one keyword of JSON Schema becomes; nothing for those that CRDs do not know."""
    match key:
        case "title" | "$defs":
            return {}
        case "properties":
            return {key: {name: _structural(p, definitions) for name, p in value.items()}}
        case "items":
            return {key: _without_defaults(_structural(value, definitions))}
        case "additionalProperties":
            return {key: _structural(value, definitions)} if isinstance(value, dict) else {}
        case "const":
            return {"enum": [value]}
        case "description":
            return {key: " ".join(str(value).split())}
        case "default":
            return _default(value, node)
        case _:
            return {key: value}


def _without_defaults(schema: Schema) -> Schema:
    """Defaults below a list as prose: filled in by the server they would drift from Git.

    Client-side apply sends a list as a whole, so that every apply would remove them again.
    """
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in schema:
        result["properties"] = {k: _without_defaults(v) for k, v in schema["properties"].items()}
    if schema.get("default") not in (None, "", {}):
        said = f"Default: {schema['default']}."
        result["description"] = f"{schema.get('description', '')} {said}".strip()
    return result


def _default(value: Any, node: Schema) -> Schema:
    if value is None:
        return {}
    if node.get("type") == "object" and "properties" in node:
        return {"default": {}}
    return {"default": value}


def _resolved(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """The node with its reference or its one non-null branch folded in; its own keys win."""
    while "$ref" in node or "anyOf" in node:
        own = {k: v for k, v in node.items() if k not in ("$ref", "anyOf")}
        if "$ref" in node:
            target = definitions[node["$ref"].rsplit("/", 1)[1]]
        else:
            (target,) = (b for b in node["anyOf"] if b.get("type") != "null")
        node = {**target, **own}
    return node


def custom_resource_definition() -> dict[str, Any]:
    """The whole CRD, one version, served and stored."""
    spec = structural_schema(ObjectSpec)
    # Filled in at creation: kstatus takes an object without it for current.
    unseen = Status().model_dump(by_alias=True, include={"observed_generation"})
    status = structural_schema(Status) | {"default": unseen}
    schema = {
        "type": "object",
        "description": "A LoRA adapter and its base model, and the served model to make of them.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {
                "type": "object",
                "properties": {
                    # Derived names and labels must stay within 63 characters.
                    "name": {
                        "type": "string",
                        "maxLength": MAX_NAME,
                        "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
                    }
                },
            },
            "spec": spec,
            "status": status,
        },
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": _SCALE},
        "additionalPrinterColumns": [
            *(
                {"name": n, "type": "string", "jsonPath": p, "priority": prio, "description": d}
                for n, p, prio, d in _COLUMNS
            ),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "lora-operator"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [version],
        },
    }


__all__ = ["API_VERSION", "custom_resource_definition", "structural_schema"]
