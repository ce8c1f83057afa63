"""What every API model shares: camelCase on the wire, frozen, closed, and its bounds.

`Text` types carry bounds because a CRD's CEL rules are costed by the declared maximum sizes.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

MAX_URI = 512


class ApiModel(BaseModel):
    """A frozen, closed model whose fields are camelCase in JSON and YAML."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        defer_build=True,  # a stage uses few of the models that its start imports
    )

    def to_json(self) -> dict[str, Any]:
        """The JSON form without unset optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str) -> dict[str, str]:
    """One CEL validation rule of the CRD, kept beside the model that it guards."""
    return {"rule": expression, "message": message}


def rules(*items: dict[str, str]) -> dict[str, Any]:
    """`json_schema_extra` that carries CEL rules into the generated schema."""
    return {"x-kubernetes-validations": list(items)}


Uri = Annotated[
    str,
    StringConstraints(pattern=r"^(s3|hf|pvc|file)://[^\s]+$", min_length=6, max_length=MAX_URI),
]
Percent = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})?%$", max_length=12)]
DECIMAL = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"
Decimal = Annotated[str, StringConstraints(pattern=DECIMAL, max_length=20)]
Duration = Annotated[
    str, StringConstraints(pattern=r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$", min_length=2)
]
ObjectName = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$", max_length=253),
]
ShortName = Annotated[
    str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$", max_length=32)
]
DIGEST = r"^sha256:[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST, max_length=71)]
Note = Annotated[str, StringConstraints(max_length=1024)]
Token = Annotated[str, StringConstraints(max_length=128)]

MapKey = "x-kubernetes-list-map-keys"


def list_map(*keys: str) -> dict[str, Any]:
    """`json_schema_extra` of a list that server-side apply merges by `keys`."""
    return {"x-kubernetes-list-type": "map", MapKey: list(keys)}


def atomic() -> dict[str, Any]:
    """`json_schema_extra` of a list that one owner replaces as a whole."""
    return {"x-kubernetes-list-type": "atomic"}


__all__ = [
    "DECIMAL",
    "DIGEST",
    "MAX_URI",
    "ApiModel",
    "Decimal",
    "Digest",
    "Duration",
    "Field",
    "MapKey",
    "Note",
    "ObjectName",
    "Percent",
    "ShortName",
    "Token",
    "Uri",
    "atomic",
    "list_map",
    "rule",
    "rules",
]
