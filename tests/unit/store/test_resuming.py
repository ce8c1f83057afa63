"""What an interrupted download left is gone on with, and never trusted."""

from pathlib import Path

import pytest

from lora_jobs.store.resuming import done_of, forget, remove_marks, remove_others, set_done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"0123456789")
    set_done(file, "etag", 6)
    return file


def test_the_same_object_is_continued(file: Path) -> None:
    assert done_of(file, "etag") == 6


def test_another_object_begins_anew(file: Path) -> None:
    assert done_of(file, "other") == 0


def test_a_file_that_became_shorter_begins_anew(file: Path) -> None:
    file.write_bytes(b"012")
    assert done_of(file, "etag") == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"etag":"etag","done":"x","size":1}', "[" * 99])
def test_a_mark_that_cannot_be_read_begins_anew(file: Path, text: str) -> None:
    file.with_name(f".{file.name}.mark").write_text(text)
    assert done_of(file, "etag") == 0


def test_nothing_is_left_of_a_file_that_came_out_wrong(file: Path) -> None:
    forget(file)
    assert not list(file.parent.iterdir())


def test_only_wanted_files_and_their_marks_stay(file: Path) -> None:
    (file.parent / "sub").mkdir()
    (file.parent / "sub/of-another-artifact").write_bytes(b"x")
    remove_others(file.parent, {file.name})
    assert done_of(file, "etag") == 6
    remove_marks(file.parent)
    assert [f.name for f in file.parent.rglob("*") if f.is_file()] == [file.name]
