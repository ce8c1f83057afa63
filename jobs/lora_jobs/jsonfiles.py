"""JSON that others wrote: bounded in size, and wrong in one way only, as a ValueError.

Python's parser takes up to 25 times the text's size (measured: 400 MiB for 16 MiB of `[],[],...`),
ends in RecursionError where brackets are deep, and lets halves of surrogate pairs through, which no
file, log or tokenizer takes.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_DOCUMENT_BYTES = 16 * 2**20
"""More than any config, index, manifest or safetensors header in use has: 100,000 tensors."""
MAX_TOKENIZER_BYTES = 64 * 2**20
"""The largest vocabularies come close to 40 MB."""
_MIB = 2**20
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(
    data: bytes | str,
    most_bytes: int = MAX_DOCUMENT_BYTES,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The document of a text in UTF-8.

    Args:
        data: The text.
        most_bytes: Longer ones are not looked at.
        pairs: Makes an object of its pairs; a dict by default.

    Raises:
        ValueError: It is longer, no UTF-8, no JSON, nested too deeply or holds half a surrogate
            pair.
    """
    if len(data) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes // _MIB} MiB")
    text = data if isinstance(data, str) else data.decode()
    try:
        document = json.loads(text, object_pairs_hook=pairs)
        if _HALF_PAIR.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return document


def read_object(file: Path, most_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """The JSON object of a file, of which no more than `most_bytes` are read.

    Raises:
        OSError: It cannot be read.
        ValueError: As `parse_json`, or it is another kind of JSON.
    """
    with file.open("rb") as stream:
        return parse_object(stream.read(most_bytes + 1), most_bytes)


def parse_object(data: bytes | str, most_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: As `parse_json`, or it is another kind of JSON.
    """
    document = parse_json(data, most_bytes)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    return document
