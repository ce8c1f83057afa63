"""Keys and envelopes: what one key has signed, nobody else has, and not of something else."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_jobs.attesting.envelope import opened, seal
from lora_jobs.attesting.keys import private_key, public_key
from signingkeys import KINDS, KeyPair

SAID = b'{"a":1}'


def envelope(pair: KeyPair, said: bytes = SAID) -> dict[str, Any]:
    return seal(said, private_key(pair.private_pem))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_has_signed_is_read_with_its_public_half_alone(kind: str) -> None:
    pair = KeyPair(kind)
    assert opened(envelope(pair), public_key(pair.public_pem)) == SAID
    with pytest.raises(ValueError, match="has not signed it"):
        opened(envelope(KeyPair(kind)), public_key(pair.public_pem))


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_that_was_changed_is_not_what_was_signed(kind: str) -> None:
    pair = KeyPair(kind)
    changed = envelope(pair) | {"payload": base64.b64encode(b'{"a":2}').decode()}
    with pytest.raises(ValueError, match="has not signed it"):
        opened(changed, public_key(pair.public_pem))


def test_an_envelope_names_no_key_for_cosign_refuses_ids_that_it_does_not_know() -> None:
    assert [list(s) for s in envelope(KeyPair())["signatures"]] == [["sig"]]


def test_one_of_several_signatures_is_enough() -> None:
    first, second = KeyPair("p256"), KeyPair()
    both = envelope(first)
    both["signatures"] += envelope(second)["signatures"]
    for pair in (first, second):
        assert opened(both, public_key(pair.public_pem)) == SAID


PAIR = KeyPair()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from(["payloadType", "payload", "signatures"]), value=JSON)
def test_garbage_is_refused_in_one_line(field: str, value: Any) -> None:
    document = envelope(PAIR) | {field: value}
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        opened(json.loads(json.dumps(document)), public_key(PAIR.public_pem))


@pytest.mark.parametrize(
    ("kind", "says"),
    [("rsa", "of another kind"), ("p384", "of another kind"), ("encrypted", "is encrypted")],
)
def test_a_private_key_that_does_not_sign_here_is_told_without_a_word_of_it(
    kind: str, says: str
) -> None:
    pem = KeyPair(kind).private_pem
    with pytest.raises(ValueError, match=says) as caught:
        private_key(pem)
    assert not any(line in str(caught.value) for line in pem.decode().splitlines()[1:-1])


@pytest.mark.parametrize("pem", [b"", b"hunter2", KeyPair().public_pem.encode(), b"\xff" * 40])
def test_what_is_no_private_key_is_told_as_such(pem: bytes) -> None:
    with pytest.raises(ValueError, match="no private key in PEM"):
        private_key(pem)
