"""The parts of a PodSpec that users set, typed so that a misspelt field is refused."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from lora_api.base import ApiModel, ObjectName, Token, atomic

Quantity = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$", max_length=32
    ),
    # YAML's `1` is an integer; the API server takes both.
    BeforeValidator(lambda v: str(v) if isinstance(v, int) else v),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
Label = Annotated[str, StringConstraints(max_length=253)]


class Resources(ApiModel):
    """Requests and limits of the main container."""

    limits: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    requests: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None


class Toleration(ApiModel):
    """A taint that is accepted."""

    key: Label | None = None
    operator: Annotated[str, Field(json_schema_extra={"enum": ["Exists", "Equal"]})] | None = None
    value: Label | None = None
    effect: (
        Annotated[
            str,
            Field(json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}),
        ]
        | None
    ) = None
    toleration_seconds: int | None = None


class LocalObjectReference(ApiModel):
    """The name of an object in the same namespace."""

    name: Label


class ClaimReference(ApiModel):
    """A PersistentVolumeClaim in the object's namespace."""

    claim_name: Annotated[ObjectName, Field(min_length=1)]


class ModelVolume(ApiModel):
    """Where serving pods keep the model: filled by the first pod, hashed again by every one."""

    persistent_volume_claim: ClaimReference


class JobCache(ApiModel):
    """Where Jobs keep what they have fetched: bases, adapters, data sets and artifacts."""

    persistent_volume_claim: ClaimReference
    size_limit: Quantity | None = None
    """What was used longest ago goes, so that no more is taken; unset: all that the volume has."""


class Scheduling(ApiModel):
    """Where pods run and what they may use."""

    resources: Resources | None = None
    node_selector: Annotated[dict[str, Token] | None, Field(max_length=16)] = None
    tolerations: Annotated[
        list[Toleration] | None, Field(max_length=16, json_schema_extra=atomic())
    ] = None
    priority_class_name: Label = ""
    runtime_class_name: Label = ""
    image_pull_secrets: Annotated[
        list[LocalObjectReference] | None, Field(max_length=8, json_schema_extra=atomic())
    ] = None

    def overlaid_with(self, other: "Scheduling") -> "Scheduling":
        """`other` over this one: maps merge, lists and words replace."""
        merged = _overlay(self.to_json(), other.to_json())
        return Scheduling.model_validate(merged)


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _overlay(result[key], value)
        elif value not in ("", None):
            result[key] = value
    return result
