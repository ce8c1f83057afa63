"""The search for secrets finds what was left, however it was written down."""

import base64
from urllib.parse import quote

import pytest

from leaks import leaks

CANARY = "canary/secret+123"


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("after", ["", "z", "yz"])
def test_a_value_is_found_in_plain_and_encoded(before: str, after: str) -> None:
    whole = f"{before}{CANARY}{after}"
    encoded = base64.b64encode(whole.encode())
    left = [("plain", whole.encode()), ("base64", encoded), ("url", quote(whole, safe="").encode())]
    assert leaks([CANARY], [*left, ("clean", b"canary")]) == ["plain", "base64", "url"]


def test_a_value_that_would_be_found_anywhere_is_no_canary() -> None:
    with pytest.raises(AssertionError, match="too short"):
        leaks(["key"], [])
