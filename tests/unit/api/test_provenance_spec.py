"""`spec.provenance`: which keys it takes, and that a profile's demand is a floor."""

from typing import Any

import pytest
from pydantic import ValidationError

from builders import spec_document
from lora_api.profile import Profile, apply_profile
from lora_api.provenance import Provenance
from lora_api.spec import ObjectSpec, parse_spec
from signingkeys import KINDS, KeyPair, provenance

FIRST, SECOND, THIRD = KeyPair("p256"), KeyPair("ed25519"), KeyPair("p256")
TRUSTED = [FIRST.public_pem, SECOND.public_pem]


def filled(own: dict[str, Any] | None, given: dict[str, Any] | None) -> Provenance | None:
    """What an object asks for under a profile."""
    asked = ObjectSpec.model_validate(spec_document(**({"provenance": own} if own else {})))
    profile = Profile.model_validate({"provenance": given} if given else {})
    return parse_spec(apply_profile(asked, profile).to_json()).provenance


@pytest.mark.parametrize("kind", KINDS)
def test_public_keys_that_sign_here_are_taken(kind: str) -> None:
    pem = KeyPair(kind).public_pem
    assert Provenance.model_validate({"publicKeys": [pem]}).public_keys == [pem]


@pytest.mark.parametrize(
    "pem", [KeyPair("rsa").public_pem, KeyPair("p384").public_pem, "", "cosign.pub",
            FIRST.private_pem.decode(), FIRST.public_pem.replace("-----END", "----END")],
    ids=["rsa", "p384", "empty", "a path", "a private key", "cut"],
)  # fmt: skip
def test_what_is_no_such_key_is_refused_with_what_to_do(pem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Provenance.model_validate({"publicKeys": [pem]})
    assert "openssl pkey -in key.pem -pubout" in str(caught.value)


def test_a_list_that_trusts_nobody_is_no_demand_and_no_way_around_one() -> None:
    with pytest.raises(ValidationError, match="trusts nobody"):
        Provenance.model_validate({"publicKeys": []})


@pytest.mark.parametrize("own", [None, {"signing": {"secretRef": {"name": "mine"}}}])
def test_the_keys_of_a_profile_hold_for_an_object_that_names_none(
    own: dict[str, Any] | None,
) -> None:
    found = filled(own, provenance(FIRST, SECOND))
    assert found is not None
    assert found.public_keys == TRUSTED
    assert found.signing is not None
    assert found.signing.secret_ref.name == ("mine" if own else "release-key")


def test_an_object_may_trust_fewer_keys_than_its_profile_and_none_besides() -> None:
    found = filled(provenance(SECOND, THIRD), provenance(FIRST, SECOND))
    assert found is not None
    assert found.public_keys == [SECOND.public_pem]


def test_how_the_lines_of_a_key_are_broken_does_not_matter() -> None:
    one_line = FIRST.public_pem.replace("\n", " ")
    found = filled({"publicKeys": [one_line]}, provenance(FIRST))
    assert found is not None
    assert found.public_keys == [one_line]


def test_an_object_that_trusts_only_others_is_refused_and_does_not_run_without_a_signature() -> (
    None
):
    with pytest.raises(ValidationError, match="trusts nobody"):
        filled(provenance(THIRD), provenance(FIRST, SECOND))


def test_without_a_profile_the_object_s_own_word_holds() -> None:
    assert filled(provenance(FIRST), None) == Provenance.model_validate(provenance(FIRST))
    assert filled(None, None) is None


def test_an_object_that_asks_for_no_signature_says_nothing_new_to_anybody() -> None:
    """Its requests are part of pods and of identities: they may not change."""
    assert "provenance" not in parse_spec(spec_document()).to_json()
    assert Profile().digest == Profile(provenance=None).digest
