"""Small JSON documents: written once, compared, read back."""

from typing import Any

from lora_api.digests import canonical_json
from lora_jobs.jsonfiles import MAX_DOCUMENT_BYTES, parse_object
from lora_jobs.store.interface import Content, ObjectStore


def read_json(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """A JSON object; None when it is not there or is no JSON object (as good as not there)."""
    content = _read(store, key)
    return None if content is None else _parsed(content.data)


def create_json(store: ObjectStore, key: str, document: object) -> bool:
    """Write canonical JSON once; False when something is there already."""
    return store.create(key, canonical_json(document))


def create_or_adopt_json(store: ObjectStore, key: str, document: dict[str, Any]) -> dict[str, Any]:
    """Write a document once and return the one that stands there now, ours or an earlier one.

    An unreadable one (no JSON) is replaced, if nobody else does so first.
    """
    if create_json(store, key, document):
        return document
    content = _read(store, key)
    found = _parsed(content.data) if content else None
    if found is not None:
        return found
    if content and store.replace(key, canonical_json(document), content.etag):
        return document
    return read_json(store, key) or document


def _read(store: ObjectStore, key: str) -> Content | None:
    return store.read(key, 0, MAX_DOCUMENT_BYTES + 1)


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        return parse_object(data)
    except ValueError:
        return None
