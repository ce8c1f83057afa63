"""config.json and the index, where a head of its own or another vocabulary must stand in them.

A file that says what is right already is copied as it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_jobs.merging.plan import MergePlan
from lora_jobs.weightfiles import INDEX_SUFFIX

CONFIG = "config.json"
INDEX = f"model{INDEX_SUFFIX}"


def changed_documents(base: Path, config: Mapping[str, Any], plan: MergePlan) -> dict[str, bytes]:
    """The documents that differ from the base's, by name; `config` is the base's config.json."""
    documents = {CONFIG: _changed_config(config, plan)} if plan.untied or plan.vocabulary else {}
    if (base / INDEX).is_file() and documents:
        documents[INDEX] = _changed_index(json.loads((base / INDEX).read_bytes()), plan)
    return {name: _encoded(document) for name, document in documents.items()}


def _changed_config(config: Mapping[str, Any], plan: MergePlan) -> dict[str, Any]:
    """Several engines read these of a vision model's text part, others of the whole."""
    changed = dict(config)
    text = changed.get("text_config")
    parts = [changed]
    if isinstance(text, dict):
        changed["text_config"] = text = dict(text)
        parts.append(text)
    for part in parts:
        if plan.untied:
            part["tie_word_embeddings"] = False
        if plan.vocabulary and (part is parts[-1] or "vocab_size" in part):
            part["vocab_size"] = plan.vocabulary
    return changed


def _changed_index(index: Mapping[str, Any], plan: MergePlan) -> dict[str, Any]:
    changed = dict(index)
    changed["weight_map"] = {
        task.name: file.name for file, tasks in plan.files.items() for task in tasks
    }
    metadata = index.get("metadata")
    if isinstance(metadata, dict):
        changed["metadata"] = dict(metadata) | {"total_size": plan.total_bytes}
        if "total_parameters" in metadata:
            changed["metadata"]["total_parameters"] = plan.parameters
    return changed


def _encoded(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
