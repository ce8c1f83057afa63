"""Records as they are read from files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lora_api.jobcontract import Reason
from lora_api.spec import RecordFormat
from lora_jobs.datasets.records import (
    CompletionRecord,
    ConversationRecord,
    RecordSet,
    TextRecord,
    read_records,
)
from lora_jobs.errors import Refused


def lines(file: Path, *rows: object) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def texts(records: RecordSet) -> list[str]:
    return [r.plain for r in records.records]


def test_the_first_record_decides_the_format(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    cases = {
        "text": ({"text": "a"}, RecordFormat.TEXT, TextRecord),
        "pc": (
            {"prompt": "a", "completion": "b"},
            RecordFormat.PROMPT_COMPLETION,
            CompletionRecord,
        ),
        "chat": ({"messages": chat}, RecordFormat.MESSAGES, ConversationRecord),
        "chat-pc": (
            {"prompt": chat[:1], "completion": chat[1:]},
            RecordFormat.PROMPT_COMPLETION,
            ConversationRecord,
        ),
        "most specific": (
            {"text": "x", "messages": chat},
            RecordFormat.MESSAGES,
            ConversationRecord,
        ),
    }  # fmt: skip
    for name, (row, expected, kind) in cases.items():
        found = read_records(lines(tmp_path / f"{name}.jsonl", row))
        assert found.format is expected, name
        assert isinstance(found.records[0], kind), name


def test_a_conversation_split_into_prompt_and_completion_remembers_where(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}],
        "completion": [{"role": "assistant", "content": "hello"}],
    }
    (record,) = read_records(lines(tmp_path / "a.jsonl", row)).records
    assert isinstance(record, ConversationRecord)
    assert record.prompt_turns == 2


def test_all_files_of_a_folder_are_read_in_order_and_others_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    lines(tmp_path / "b.jsonl", {"text": "2"}, {"text": "3"})
    lines(tmp_path / "a.jsonl", {"text": "1"})
    lines(tmp_path / "sub" / "c.jsonl", {"text": "4"})
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "dataset_infos.json").write_text('{"about": "data"}')
    assert texts(read_records(tmp_path)) == ["1", "2", "3", "4"]


def test_a_text_file_is_one_document_unless_form_feeds_divide_it(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("first\n\nparagraphs stay together\n")
    assert texts(read_records(tmp_path / "one.txt")) == ["first\n\nparagraphs stay together\n"]
    (tmp_path / "two.txt").write_text("page one\nmore\n\fpage two\n\f\n")
    pages = read_records(tmp_path / "two.txt").records
    assert [r.plain for r in pages] == ["page one\nmore\n", "page two\n"]
    assert [r.place.line for r in pages] == [1, 3]


def test_parquet_and_json_lists_hold_the_same_records_as_lines(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "j.json").write_text(json.dumps(rows))
    lines(tmp_path / "l.jsonl", *rows)
    read = {
        name: texts(read_records(tmp_path / name)) for name in ("p.parquet", "j.json", "l.jsonl")
    }
    assert read["p.parquet"] == read["j.json"] == read["l.jsonl"] == ["a\nb", "c\nd"]


def test_line_separators_inside_a_string_do_not_end_the_record(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + '{"text": "a\u2028b\u0085c"}\r\n'.encode())
    assert texts(read_records(file)) == ["a\u2028b\u0085c"]


def test_records_without_text_are_left_out(tmp_path: Path) -> None:
    file = lines(tmp_path / "wiki.jsonl", {"text": ""}, {"text": " \n"}, {"text": "words"})
    (record,) = read_records(file).records
    assert record.place.line == 3


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": "  "}\n'])
def test_an_empty_set_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "task.jsonl").write_text(content)
    with pytest.raises(Refused, match=r"task\.jsonl") as refused:
        read_records(tmp_path / "task.jsonl", name="task")
    assert refused.value.reason is Reason.EMPTY_DATASET


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(Refused) as refused:
        read_records(tmp_path, name="task")
    assert refused.value.reason is Reason.EMPTY_DATASET


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (['{"text": "ok"}', '{"text": "hunter2'], 2),
        (['{"text": "ok"}', "", '["hunter2"]'], 3),
        (['{"text": "ok"}', '{"prompt": "hunter2"}'], 2),
        (['{"question": "hunter2"}'], 1),
        (['{"text": 7}'], 1),
        (['{"messages": [{"role": "user", "content": ["hunter2"]}]}'], 1),
        (['{"messages": []}'], 1),
    ],
)
def test_a_broken_record_is_named_by_its_line_and_never_quoted(
    tmp_path: Path, rows: list[str], line: int
) -> None:
    (tmp_path / "task.jsonl").write_text("\n".join(rows))
    with pytest.raises(Refused, match=rf"task\.jsonl line {line}\b") as refused:
        read_records(tmp_path / "task.jsonl")
    assert refused.value.reason is Reason.INVALID_INPUT
    assert SECRET not in str(refused.value)


def test_a_stated_format_that_the_records_do_not_have_is_refused(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": "a"})
    with pytest.raises(Refused, match="messages"):
        read_records(file, RecordFormat.MESSAGES)


def test_files_that_are_not_what_their_name_says_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR?" * 10)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00bad")
    for name in ("a.parquet", "a.txt"):
        with pytest.raises(Refused, match=name) as refused:
            read_records(tmp_path / name)
        assert refused.value.reason is Reason.INVALID_INPUT
