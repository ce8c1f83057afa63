"""Which data sets have records, from their first bytes."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_api.jobcontract import Reason
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import Refused
from lora_jobs.sources.pins import PinnedFile
from lora_jobs.sources.place import open_source, pin_source
from lora_jobs.sources.readable import check_has_prompts, check_has_records
from lora_jobs.sources.selection import SourceKind, select


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")


def check(file: Path) -> None:
    source = open_source(f"file://{file}", "", None)
    check_has_records(source, pin_source(SourceKind.DATA, source))


def parquet(rows: int) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["words"] * rows}), stream)
    return stream.getvalue()


FULL = {
    "a.jsonl": b'{"text": "words"}\n',
    "bom.jsonl": b'\xef\xbb\xbf{"text": "words"}\n',
    "long.jsonl": b'{"text": "' + b"x" * 2**21 + b'"}\n',
    "one-line.jsonl": b'{"text": "words"}',
    "a.json": json.dumps([{"text": "words"}]).encode(),
    "a.txt": b"words",
    "a.parquet": parquet(2),
}
EMPTY = {
    "a.jsonl": b"", "b.jsonl": b"\n\n", "a.json": b"[ ]", "b.json": b"{}", "a.txt": b" \n",
    "a.parquet": parquet(0),
}  # fmt: skip
WRONG = {
    "a.jsonl": b"words\n", "b.jsonl": b"[1, 2]\n", "a.json": b"words", "a.parquet": b"words",
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_a_data_set_with_records_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FULL[name])
    check(tmp_path / name)


@pytest.mark.parametrize("name", EMPTY)
def test_a_data_set_without_records_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(EMPTY[name])
    with pytest.raises(Refused) as caught:
        check(tmp_path / name)
    assert caught.value.reason is Reason.EMPTY_DATASET


def test_texts_are_no_questions_and_that_is_said_before_anything_runs(tmp_path: Path) -> None:
    def ask(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        source = open_source(f"file://{tmp_path / name}", "", None)
        check_has_prompts(source, pin_source(SourceKind.DATA, source))

    ask("a.jsonl", b'{"prompt": "1 + 1 = ", "completion": "2"}\n')
    ask("b.jsonl", b'{"messages": [{"role": "user", "content": "hello"}]}\n')
    for name in ("a.jsonl", "a.txt"):
        with pytest.raises(Refused, match="scorer needs records with prompt and completion"):
            ask(name, FULL[name])


@pytest.mark.parametrize("name", WRONG)
def test_a_data_set_in_another_form_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRONG[name])
    with pytest.raises(Refused, match="cannot be read") as caught:
        check(tmp_path / name)
    assert caught.value.reason is Reason.INVALID_INPUT


def test_a_folder_of_files_is_one_data_set(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("1.jsonl", "2.jsonl"):
        (tmp_path / "set" / name).write_bytes(FULL["a.jsonl"])
    check(tmp_path / "set")


@pytest.mark.parametrize("path", ["../a.jsonl", "/etc/a.jsonl", "a/../../b.jsonl"])
def test_a_path_that_leads_out_of_the_folder_is_unsafe(path: str) -> None:
    with pytest.raises(Refused) as caught:
        select(SourceKind.DATA, "s3://b/p", [PinnedFile(path=path, size=1)], lambda _: b"")
    assert caught.value.reason is Reason.UNSAFE_FILE
