"""`spec.connections`: how sources and the store are reached."""

from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from lora_api.base import ApiModel, ObjectName, ShortName, rule, rules

AWS_HOST = "s3.amazonaws.com"
"""Stands for all of AWS, whatever the region."""
HUB_HOST = "huggingface.co"


def _known(endpoint: str) -> str:
    host_of(endpoint)
    return endpoint


Endpoint = Annotated[
    str,
    StringConstraints(
        pattern=r"^(https?://([_a-zA-Z0-9][-._a-zA-Z0-9]*|\[[.:0-9a-fA-F]+\])(:[0-9]{1,5})?(/[^\s?#\\]*)?)?$",
        max_length=512,
    ),
    AfterValidator(_known),
]
"""URL of scheme, host, port and path. Nothing else: parsers differ on what else may stand there."""


def host_of(endpoint: str) -> str:
    """The host of an endpoint in the one form that patterns are matched with; empty for none.

    Raises:
        ValueError: It has no such address or port.
    """
    parts = urlsplit(endpoint)
    if parts.port == 0:
        raise ValueError("there is no port 0")
    host = (parts.hostname or "").rstrip(".")
    return str(ip_address(host)) if ":" in host else host


class SecretReference(ApiModel):
    """A Secret in the object's namespace; it is mounted by pods and never read by the operator."""

    name: Annotated[ObjectName, Field(min_length=1)]


class CaBundle(ApiModel):
    """Certificates in a ConfigMap of the object's namespace, which pods mount."""

    config_map_name: Annotated[ObjectName, Field(min_length=1)]
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "ca.crt"
    """Of the PEM file in it."""


class Checksums(StrEnum):
    """Which requests carry checksums of their own, beside the signature."""

    WHEN_SUPPORTED = "WhenSupported"
    WHEN_REQUIRED = "WhenRequired"


class S3Connection(ApiModel):
    """An S3-compatible endpoint."""

    endpoint: Endpoint = ""
    """URL of scheme, host, port and path, no more; empty means AWS."""
    region: Annotated[str, StringConstraints(max_length=64)] = "us-east-1"
    path_style: bool = True
    """Address buckets by path, as most self-hosted servers need."""
    checksums: Checksums = Checksums.WHEN_SUPPORTED
    """`WhenRequired` for servers that refuse `x-amz-checksum-*`: files are then signed instead."""
    ca_bundle: CaBundle | None = None
    """Authorities that the endpoint's certificate is trusted by; absent: the image's."""
    secret_ref: SecretReference | None = None
    """Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; absent: workload identity."""
    read_secret_ref: SecretReference | None = None
    """Read-only credentials for serving pods; absent means `secretRef`."""


class HuggingFaceConnection(ApiModel):
    """The Hugging Face Hub or a mirror of it."""

    endpoint: Endpoint = ""
    """URL of scheme, host, port and path, no more; empty means the public hub."""
    ca_bundle: CaBundle | None = None
    """Authorities that the mirror's certificate is trusted by, beside the image's."""
    secret_ref: SecretReference | None = None
    """Secret with key `HF_TOKEN`."""


class Connection(ApiModel):
    """How to reach a place that sources are read from or artifacts are written to."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "has(self.s3) != has(self.huggingFace)",
                "a connection names exactly one of s3 and huggingFace",
            )
        )
    }

    name: ShortName
    s3: S3Connection | None = None
    hugging_face: HuggingFaceConnection | None = None

    @property
    def host(self) -> str:
        """What it reaches; without an endpoint AWS or the public Hub."""
        if self.s3:
            return host_of(self.s3.endpoint) or AWS_HOST
        return host_of(self.hugging_face.endpoint if self.hugging_face else "") or HUB_HOST

    @property
    def ca_bundle(self) -> CaBundle | None:
        """Of either kind."""
        kind = self.s3 or self.hugging_face
        return kind.ca_bundle if kind else None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.s3 is None) == (self.hugging_face is None):
            raise ValueError("a connection names exactly one of s3 and huggingFace")
        return self
