"""What travels along with the weights: configuration, tokenizer, chat template, generation config.

An adapter that brings its own tokenizer was trained with it, so its files win, as one set. Python
and pickle files never travel: they would run where the model is loaded.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from lora_api.digests import FileDigest
from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused

SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip


def copy_companions(base: Path, adapter: Path, output: Path) -> list[FileDigest]:
    """Copy every companion of the base, with the adapter's tokenizer if it has one.

    Raises:
        Refused: The model needs code of its own, or the adapter's tokenizer has more tokens than
            the base has embeddings.
    """
    config = _json(base / "config.json")
    if "auto_map" in config:
        raise Refused(
            Reason.UNSAFE_FILE,
            "the base needs code of its own (auto_map in config.json), which is never run; use an "
            "architecture that transformers knows",
        )
    own_tokenizer = (adapter / "tokenizer.json").is_file()
    if own_tokenizer:
        _check_vocabulary(adapter / "tokenizer.json", config)
    copied = []
    for file in sorted(base.iterdir()):
        if file.suffix in SUFFIXES and not (own_tokenizer and file.name in TOKENIZER_FILES):
            copied.append(_copy(file, output))
    if own_tokenizer:
        brought = (adapter / name for name in TOKENIZER_FILES)
        copied += [_copy(file, output) for file in brought if file.is_file()]
    return copied


def _check_vocabulary(tokenizer: Path, config: dict[str, Any]) -> None:
    document = _json(tokenizer)
    ids = list(document.get("model", {}).get("vocab", {}).values())
    ids = [i for i in ids if isinstance(i, int)]
    ids += [token["id"] for token in document.get("added_tokens", [])]
    size = config.get("vocab_size")
    if isinstance(size, int) and max(ids, default=0) >= size:
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter's tokenizer has token id {max(ids)}, but the base has {size} embeddings; "
            "name the base that the adapter was trained on",
        )


def _copy(file: Path, output: Path) -> FileDigest:
    target = output / file.name
    shutil.copyfile(file, target)
    data = target.read_bytes()
    return FileDigest(file.name, len(data), hashlib.sha256(data).hexdigest())


def _json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
    except (OSError, ValueError):
        pass
    raise Refused(Reason.INVALID_INPUT, f"{file.name} is missing or no JSON; upload it again")
