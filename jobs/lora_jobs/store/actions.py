"""The action cache: what a stage produced for given inputs. Errors are never cached.

An entry is created after its artifact, create-only. It counts when its artifact is still there, so
that a lost artifact is made again, and its entry then replaced.
"""

from typing import Any

from lora_api import layout
from lora_api.base import ApiModel
from lora_api.digests import canonical_json
from lora_api.jobcontract import StageCall, StageResult
from lora_jobs.store.artifacts import has_artifact
from lora_jobs.store.documents import create_json, read_json
from lora_jobs.store.interface import ObjectStore


class ActionEntry(ApiModel):
    """One finished piece of work."""

    call: StageCall
    result: StageResult
    provenance: dict[str, str] = {}
    """Versions of the tools and images that ran; recorded, not hashed."""


def read_action(store: ObjectStore, call: StageCall) -> StageResult | None:
    """The result of a call that was done before, with its artifact in place; else None."""
    key = layout.action(call.stage, call.input_hash)
    return _usable(store, call, read_json(store, key))


def provenance_of(store: ObjectStore, call: StageCall) -> dict[str, str]:
    """With what a call was done, as its entry tells; empty where there is none."""
    try:
        entry = ActionEntry.model_validate(
            read_json(store, layout.action(call.stage, call.input_hash))
        )
    except ValueError:
        return {}
    return entry.provenance


def write_action(
    store: ObjectStore, call: StageCall, result: StageResult, provenance: dict[str, str]
) -> StageResult:
    """Record a result, or adopt the one that somebody recorded meanwhile.

    Returns:
        The result that stands in the store from now on.
    """
    key = layout.action(call.stage, call.input_hash)
    document = ActionEntry(call=call, result=result, provenance=provenance).to_json()
    if create_json(store, key, document):
        return result
    there = store.read(key)
    earlier = _usable(store, call, read_json(store, key))
    if earlier is not None:
        return earlier
    if there is not None:
        store.replace(key, canonical_json(document), there.etag)
    return read_action(store, call) or result


def _usable(
    store: ObjectStore, call: StageCall, document: dict[str, Any] | None
) -> StageResult | None:
    try:
        result = ActionEntry.model_validate(document).result
    except ValueError:  # absent, or written by something else
        return None
    if result.stage is not call.stage or result.input_hash != call.input_hash:
        return None
    return result if not result.digest or has_artifact(store, result.digest) else None
