"""DSSE: a statement and its signature in one JSON document (github.com/secure-systems-lab/dsse).

Signed is the pre-authentication encoding, type and payload with their lengths, so that neither can
be taken for something else. No key id is written: cosign refuses those that it has not made.
"""

import base64
import binascii
from typing import Any

from lora_jobs.attesting.keys import PrivateKey, PublicKey, has_signed, sign

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def seal(payload: bytes, key: PrivateKey) -> dict[str, Any]:
    """The envelope of a payload, signed."""
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(sign(key, _encoded(payload))).decode()}],
    }


def opened(document: dict[str, Any], key: PublicKey) -> bytes:
    """The payload, which this key has signed.

    Raises:
        ValueError: It has not, or this is no such envelope.
    """
    if document.get("payloadType") != PAYLOAD_TYPE:
        raise ValueError(f"its payload is not of type {PAYLOAD_TYPE}")
    payload = _decoded(document.get("payload"))
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not all(isinstance(s, dict) for s in signatures):
        raise ValueError("it has no list of signatures")
    message = _encoded(payload)
    if not any(has_signed(key, _decoded(s.get("sig")), message) for s in signatures):
        raise ValueError("the key that it is filed under has not signed it")
    return payload


def _encoded(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "-", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not in base64") from None
