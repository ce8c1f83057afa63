"""`spec.provenance`: who signs for a release, and whose signature it needs to serve."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from lora_api.base import ApiModel, atomic, rule, rules
from lora_api.connections import SecretReference
from lora_api.digests import digest_of

_KINDS = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",  # ECDSA on P-256, uncompressed
    "MCowBQYDK2VwAyEA",  # Ed25519
)
"""How the base64 of a SubjectPublicKeyInfo begins, by kind of key."""
PUBLIC_KEY = (
    r"^-----BEGIN PUBLIC KEY-----\s+(" + "|".join(_KINDS) + r")[A-Za-z0-9+/=\s]+"
    r"-----END PUBLIC KEY-----\s*$"
)
PUBLIC_KEY_MESSAGE = (
    "publicKeys takes PEM texts (BEGIN PUBLIC KEY) of ECDSA P-256 or Ed25519 keys, as "
    "`openssl pkey -in key.pem -pubout` prints them"
)
NO_KEY_LEFT = (
    "publicKeys trusts nobody: give at least one key, of those that the profile trusts where it "
    "names some, or leave the field out"
)


class Signing(ApiModel):
    """Whose key `publish` signs with."""

    secret_ref: SecretReference
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "key.pem"
    """Of the PEM file in the Secret: a private key of ECDSA P-256 or Ed25519, not encrypted."""


class Provenance(ApiModel):
    """Signed statements of what a release was made of, and whether one is asked for."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            # As the validator below.
            rule(
                f"!has(self.publicKeys) || self.publicKeys.all(k, k.matches(r'{PUBLIC_KEY}'))",
                PUBLIC_KEY_MESSAGE,
            )
        )
    }

    signing: Signing | None = None
    """Unset: the statement is written without a signature."""
    public_keys: Annotated[
        list[Annotated[str, StringConstraints(max_length=512)]] | None,
        Field(min_length=1, max_length=8, json_schema_extra=atomic()),
    ] = None
    """PEM texts. With them nothing serves, and no release is pinned, unless one of these keys has
    signed for its very files and serving recipe."""

    @field_validator("public_keys", mode="before")
    @classmethod
    def _trusts_somebody(cls, keys: object) -> object:
        if keys == []:
            raise ValueError(NO_KEY_LEFT)
        return keys

    @field_validator("public_keys")
    @classmethod
    def _are_of_a_known_kind(cls, keys: list[str] | None) -> list[str] | None:
        if any(not re.match(PUBLIC_KEY, key) for key in keys or ()):
            raise ValueError(PUBLIC_KEY_MESSAGE)
        return keys

    @property
    def digest(self) -> str:
        """Identity of what is asked for."""
        return digest_of(self.to_json())


def trusted_by_both(own: Iterable[str], other: Iterable[str]) -> list[str]:
    """The keys of `own` that `other` names too, however the lines of a PEM text are broken."""
    known = {_plain(key) for key in other}
    return [key for key in own if _plain(key) in known]


def _plain(key: str) -> str:
    return "".join(key.split())
