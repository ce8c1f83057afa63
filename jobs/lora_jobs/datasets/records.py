"""Records of a data set, read from a file or a folder. No model is needed to read them.

What is a record:

    .jsonl    one a line: {"text": ...}, {"messages": [{"role", "content"}]} or
              {"prompt": ..., "completion": ...}, both strings or both lists of messages
    .json     one an element of a list, or as .jsonl; in a folder only where nothing else is
    .parquet  one a row, the same fields as columns
    .txt      one a file, or one a page where form feeds divide the file

A folder is read in the order of its paths; files with other suffixes are left alone. Records
without any text (empty lines of a corpus) are left out. All records of a set have one format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_api.spec import RecordFormat
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import parse_json

JSON_LINES = ".jsonl"
JSON = ".json"
PARQUET = ".parquet"
PLAIN_TEXT = ".txt"
SUFFIXES = (JSON_LINES, PARQUET, PLAIN_TEXT, JSON)
PAGE_BREAK = "\f"
MAX_RECORD_BYTES = 64 * 2**20
MAX_LIST_BYTES = 512 * 2**20
"""A list is parsed as a whole; larger sets are given as JSON lines."""

FIELDS = {
    RecordFormat.MESSAGES: ("messages",),
    RecordFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    RecordFormat.TEXT: ("text",),
}
"""In the order in which Auto tries them."""


@dataclass(frozen=True)
class Place:
    """Where a record stands: its file and, from 1, its line, or its number in a list or table."""

    file: str
    line: int

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.file} line {self.line}"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class TextRecord:
    """A document; every token of it counts."""

    place: Place
    text: str

    @property
    def plain(self) -> str:
        """All its text."""
        return self.text


@dataclass(frozen=True)
class CompletionRecord:
    """A prompt and what should follow it."""

    place: Place
    prompt: str
    completion: str

    @property
    def plain(self) -> str:
        """All its text."""
        return f"{self.prompt}\n{self.completion}"


@dataclass(frozen=True)
class ConversationRecord:
    """Turns of a conversation; what the assistant says from turn `prompt_turns` on counts."""

    place: Place
    messages: tuple[Message, ...]
    prompt_turns: int = 0

    @property
    def plain(self) -> str:
        """All its text."""
        return "\n".join(f"{m.role}: {m.content}" for m in self.messages)


Record = TextRecord | CompletionRecord | ConversationRecord


@dataclass(frozen=True)
class RecordSet:
    """The records of one source."""

    name: str
    format: RecordFormat
    records: tuple[Record, ...]


def read_records(
    path: Path, record_format: RecordFormat = RecordFormat.AUTO, name: str = ""
) -> RecordSet:
    """All records of a file or folder.

    Args:
        path: A file with one of `SUFFIXES`, or a folder that holds such files at any depth.
        record_format: Auto takes the format of the first record for the whole set.
        name: What messages call the set; the path's name by default.

    Raises:
        Refused: Nothing to read (`EMPTY_DATASET`), or a record that cannot be read
            (`INVALID_INPUT`, with its file and line, never with its content).
    """
    name = name or path.name
    rows = _rows(path, name)
    first = next(rows, None)
    if first is None:
        raise Refused(
            Reason.EMPTY_DATASET, f"data set {name} ({path.name}) holds no record; add some"
        )
    chosen = _format_of(*first) if record_format is RecordFormat.AUTO else record_format
    records = [_record(place, row, chosen) for place, row in (first, *rows)]
    records = [r for r in records if r.plain.strip()]
    if not records:
        raise Refused(
            Reason.EMPTY_DATASET,
            f"data set {name} ({path.name}) holds records, but none with any text",
        )
    return RecordSet(name=name, format=chosen, records=tuple(records))


def _rows(path: Path, name: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    for file in _data_files(path, name):
        label = file.relative_to(path).as_posix() if path.is_dir() else file.name
        yield from _READERS[file.suffix](file, label)


def _data_files(path: Path, name: str) -> list[Path]:
    if path.is_file() and path.suffix in SUFFIXES:
        return [path]
    found = sorted(f for f in path.rglob("*") if f.suffix in SUFFIXES and f.is_file())
    # Beside data, .json files tell about it: dataset_infos.json and the like.
    found = [f for f in found if f.suffix != JSON] or found
    if not found:
        raise Refused(
            Reason.INVALID_INPUT if path.is_file() else Reason.EMPTY_DATASET,
            f"data set {name} ({path.name}) has no file of a known kind: {', '.join(SUFFIXES)}",
        )
    return found


def _text_of(file: Path, label: str) -> str:
    try:
        # Windows' editors mark UTF-8 with a BOM, which json refuses. No newline translation: a text
        # is what its bytes say.
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(Place(label, 1), f"not UTF-8 at byte {error.start}") from None


def _pages(file: Path, label: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    line = 1
    for page in _text_of(file, label).replace("\r\n", "\n").split(PAGE_BREAK):
        if page.strip():
            yield Place(label, line), {"text": page}
        line += page.count("\n")


def _json_lines(file: Path, label: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    # Not splitlines(): JSON strings may hold U+2028 and other breaks that it splits at.
    for number, line in enumerate(_text_of(file, label).split("\n"), start=1):
        if not line.strip():
            continue
        place = Place(label, number)
        try:
            row = parse_json(line, MAX_RECORD_BYTES)
        except ValueError as error:
            column = getattr(error, "colno", 1)
            raise _unreadable(place, f"not JSON at column {column}; one record a line") from None
        if not isinstance(row, dict):
            raise _unreadable(place, f"a JSON {type(row).__name__}, not an object")
        yield place, row


def _json_rows(file: Path, label: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    text = _text_of(file, label)
    if not text.lstrip().startswith("["):
        yield from _json_lines(file, label)
        return
    try:
        rows = parse_json(text, MAX_LIST_BYTES)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise _unreadable(Place(label, line), "not JSON") from None
    for number, row in enumerate(rows, start=1):
        place = Place(label, number)
        if not isinstance(row, dict):
            raise _unreadable(place, f"a JSON {type(row).__name__}, not an object")
        yield place, row


def _parquet_rows(file: Path, label: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet as parquet

    wanted = [field for fields in FIELDS.values() for field in fields]
    try:
        table = parquet.ParquetFile(file)
        columns = [c for c in table.schema_arrow.names if c in wanted]
        number = 0
        for batch in table.iter_batches(columns=columns or None):
            for row in batch.to_pylist():
                number += 1
                yield Place(label, number), row
    except (pyarrow.ArrowException, OSError, ValueError):
        raise _unreadable(Place(label, 1), "not a Parquet file") from None


_READERS = {
    PLAIN_TEXT: _pages,
    PARQUET: _parquet_rows,
    JSON_LINES: _json_lines,
    JSON: _json_rows,
}


def _format_of(place: Place, row: Mapping[str, Any]) -> RecordFormat:
    for record_format, fields in FIELDS.items():
        if all(row.get(f) is not None for f in fields):
            return record_format
    found = ", ".join(sorted(row)[:8]) or "none"
    raise _unreadable(
        place, f"fields {found}; expected messages, or prompt and completion, or text"
    )


def _record(place: Place, row: Mapping[str, Any], record_format: RecordFormat) -> Record:
    missing = [f for f in FIELDS[record_format] if row.get(f) is None]
    if missing:
        raise _unreadable(
            place, f"no field {' and '.join(missing)}, which format {record_format} needs"
        )
    if record_format is RecordFormat.TEXT:
        return TextRecord(place, _string(place, row, "text"))
    if record_format is RecordFormat.MESSAGES:
        return ConversationRecord(place, _messages(place, row, "messages"))
    if isinstance(row["prompt"], list) and isinstance(row["completion"], list):
        prompt = _messages(place, row, "prompt")
        turns = prompt + _messages(place, row, "completion")
        return ConversationRecord(place, turns, prompt_turns=len(prompt))
    return CompletionRecord(place, _string(place, row, "prompt"), _string(place, row, "completion"))


def _string(place: Place, row: Mapping[str, Any], field: str) -> str:
    value = row[field]
    if not isinstance(value, str):
        raise _unreadable(place, f"field {field} is a {type(value).__name__}, not a string")
    return value


def _messages(place: Place, row: Mapping[str, Any], field: str) -> tuple[Message, ...]:
    value = row[field]
    if not isinstance(value, list) or not value:
        raise _unreadable(place, f"field {field} is not a list of messages")
    messages = []
    for item in value:
        role = item.get("role") if isinstance(item, dict) else None
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise _unreadable(
                place, f"field {field} holds a message without role and content as strings"
            )
        messages.append(Message(role, content))
    return tuple(messages)


def _unreadable(place: Place, what: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, f"{place}: {what}")
