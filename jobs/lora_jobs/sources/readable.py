"""Cheap proofs that a data set has records: the first bytes of each file, never all of it."""

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import parse_json
from lora_jobs.sources.pins import Pin
from lora_jobs.sources.place import Source

_LOOK_BYTES = 2**20


def check_has_records(source: Source, pin: Pin) -> None:
    """Read the beginning of every file of a data set.

    Raises:
        Refused: No file has a record, or the first record of one cannot be read.
    """
    found = [_has_record(source, file.path, file.size) for file in pin.files]
    if not any(found):
        raise Refused(
            Reason.EMPTY_DATASET, f"{pin.uri} holds no record; upload a data set that is not empty"
        )


def check_has_prompts(source: Source, pin: Pin) -> None:
    """Look whether the beginning of a data set can be asked; `evaluate` looks at every record.

    Raises:
        Refused: It is text, which no scorer can compare an answer with.
    """
    for file in pin.files:
        if file.path.endswith(".txt") or _starts_as_text(source, file.path):
            raise Refused(
                Reason.INVALID_INPUT,
                f"{file.path} of {pin.uri} holds texts, and evaluation.task.scorer needs records "
                "with prompt and completion, or messages; give such records or remove the scorer",
            )


def _starts_as_text(source: Source, path: str) -> bool:
    if not path.endswith(".jsonl"):
        return False
    start = source.read(path, 0, _LOOK_BYTES).decode("utf-8", errors="replace")
    try:
        record = parse_json(start.removeprefix("\ufeff").lstrip().partition("\n")[0])
    except ValueError:
        return False  # longer than what was looked at, or refused already
    return isinstance(record, dict) and not record.keys() & {"messages", "prompt"}


def _has_record(source: Source, path: str, size: int) -> bool:
    if size == 0:
        return False
    if path.endswith(".parquet"):
        return _parquet_rows(source, path, size) > 0
    start = source.read(path, 0, _LOOK_BYTES)
    text = start.decode("utf-8", errors="replace").removeprefix("\ufeff").lstrip()
    if path.endswith(".jsonl") and text:
        _check_first_line(source.uri, path, text, is_whole=size <= _LOOK_BYTES)
    if path.endswith(".json") and text and text[0] not in "[{":
        raise _unreadable(source.uri, path, "it is neither a list nor an object")
    return text not in ("", "[]", "{}") and not (text.startswith("[") and text[1:].strip() == "]")


def _parquet_rows(source: Source, path: str, size: int) -> int:
    """From the footer, which is read from the file's end."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    tail = source.read(path, max(0, size - _LOOK_BYTES), _LOOK_BYTES)
    try:
        return int(read_metadata(pyarrow.BufferReader(tail)).num_rows)
    except (pyarrow.ArrowException, OSError, ValueError):
        raise _unreadable(source.uri, path, "it is no Parquet file") from None


def _check_first_line(uri: str, path: str, text: str, is_whole: bool) -> None:
    line, newline, _ = text.partition("\n")
    if not newline and not is_whole:
        return  # a record longer than what was looked at
    try:
        record = parse_json(line)
    except ValueError as error:
        raise _unreadable(uri, path, f"its first line is no JSON ({error})") from None
    if not isinstance(record, dict):
        raise _unreadable(uri, path, "its first line is no JSON object")


def _unreadable(uri: str, path: str, why: str) -> Refused:
    return Refused(
        Reason.INVALID_INPUT, f"{path} of {uri} cannot be read: {why}; upload it in a right form"
    )
