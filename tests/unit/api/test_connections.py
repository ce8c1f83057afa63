"""An endpoint has one host, whoever reads it: what is checked is what is reached."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from urllib3.util import parse_url

from lora_api.connections import Connection, HuggingFaceConnection, S3Connection, host_of

TRICKS = "@:/\\?#[]%.-_ \t\n\u3002\uff0eaZ9é"


def taken(endpoint: str) -> bool:
    try:
        S3Connection(endpoint=endpoint)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://s3.internal", "s3.internal"),
        ("http://S3.Internal:9000/a/path", "s3.internal"),
        ("https://s3.internal.:443", "s3.internal"),
        ("http://10.0.0.7:9000", "10.0.0.7"),
        ("http://[FD00:0:0::7]:9000", "fd00::7"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("", ""),
    ],
)
def test_the_host_has_one_form(endpoint: str, host: str) -> None:
    assert taken(endpoint)
    assert host_of(endpoint) == host


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://good.internal@evil.example",
        "https://key:secret@good.internal",
        "https://good.internal\\@evil.example",
        "https://evil.example\\@good.internal",
        "https://evil.example#@good.internal",
        "https://evil.example?@good.internal",
        "https://evil.example%2f.good.internal",
        "https://bücher.example",
        "https://evil。example",
        "https://[::ffff:zz]",
        "https://[::::]",
        "https://[fe80::1%25eth0]",
        "https://s3.internal:99999",
        "https://s3.internal:0",
        "https://s3.internal:",
        "https://.",
        "ftp://s3.internal",
        "s3.internal",
    ],
)
def test_an_endpoint_that_parsers_could_differ_on_is_refused(endpoint: str) -> None:
    assert not taken(endpoint)


@given(st.text(st.sampled_from(TRICKS), min_size=1, max_size=12), st.booleans())
def test_the_clients_see_the_host_that_was_checked(trick: str, behind: bool) -> None:
    endpoint = f"http://good.internal{trick}evil" if behind else f"http://{trick}good.internal"
    if taken(endpoint):
        host = host_of(endpoint)
        for seen in (
            parse_url(endpoint).host,
            httpx.URL(endpoint).host,
            urlsplit(endpoint).hostname,
        ):
            assert (seen or "").strip("[]").rstrip(".").lower() == host


def test_an_endpoint_that_is_unset_is_a_public_one() -> None:
    aws = Connection(name="store", s3=S3Connection(region="eu-west-1"))
    hub = Connection(name="hub", hugging_face=HuggingFaceConnection())
    assert (aws.host, hub.host) == ("s3.amazonaws.com", "huggingface.co")
