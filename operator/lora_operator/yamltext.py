"""JSON that a YAML parser reads as the same text: what an apply sends. Pure.

The API server reads the body of an apply as YAML, in which JSON's escapes of characters beyond
U+FFFF, as two surrogates, are an error: one emoji in a message, and no status could be written.
"""

import json
import re
from typing import Any

_NOT_RAW = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What YAML forbids or takes for line breaks; the escape of JSON is YAML's too."""


def yaml_of(document: Any) -> str:
    """A document of JSON values."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ": "))
    return _NOT_RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
