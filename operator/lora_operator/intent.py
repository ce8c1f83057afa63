"""Whether a live object already is what we want, so that equal intent writes nothing.

The spec hash tells whether our intent has changed since we applied it; the comparison tells whether
somebody else has changed what we own. Fields that we do not name (defaults, other owners') count
for nothing.
"""

from collections.abc import Mapping
from typing import Any

from lora_api.naming import ANNOTATION_SPEC_HASH
from lora_operator.quantities import quantity_of


def is_as_intended(live: Mapping[str, Any], intent: Mapping[str, Any]) -> bool:
    """Whether applying `intent` would change nothing."""
    return _spec_hash(live) == _spec_hash(intent) and _contains(live, intent)


def _spec_hash(document: Mapping[str, Any]) -> str:
    return str(document["metadata"].get("annotations", {}).get(ANNOTATION_SPEC_HASH))


def _contains(live: Any, intent: Any) -> bool:
    if isinstance(intent, Mapping):
        return isinstance(live, Mapping) and all(
            _contains(live.get(key), value) for key, value in intent.items()
        )
    if isinstance(intent, list):
        return (
            isinstance(live, list)
            and len(live) == len(intent)
            and all(_contains(a, b) for a, b in zip(live, intent, strict=True))
        )
    # The server drops what is empty and writes quantities its own way: 1000m is 1.
    return live == intent or (not live and not intent) or _same_quantity(live, intent)


def _same_quantity(one: Any, other: Any) -> bool:
    first, second = quantity_of(one), quantity_of(other)
    return first is not None and first == second
