"""Calibration and evaluation sets share no record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.jobcontract import Reason
from lora_api.spec import RecordFormat
from lora_jobs.datasets.overlap import overlaps, refuse_overlap
from lora_jobs.datasets.records import Place, RecordSet, TextRecord
from lora_jobs.errors import Refused


def records(name: str, *texts: str) -> RecordSet:
    rows = tuple(TextRecord(Place(f"{name}.jsonl", i), t) for i, t in enumerate(texts, start=1))
    return RecordSet(name, RecordFormat.TEXT, rows)


def test_disjoint_sets_pass() -> None:
    refuse_overlap([records("calibration0", "a", "b")], records("task", "c", "d"))


def test_a_shared_record_is_refused_with_count_and_lines() -> None:
    calibration = [records("calibration0", "x"), records("calibration1", "y", "Shared  One")]
    with pytest.raises(Refused) as refused:
        refuse_overlap(calibration, records("task", "z", "shared one\n", "SHARED ONE", "w"))
    assert refused.value.reason is Reason.DATASET_OVERLAP
    message = str(refused.value)
    assert "2 of 4 records of task" in message
    assert "task.jsonl line 2 is calibration1.jsonl line 2" in message


def test_a_long_record_is_quoted_by_its_beginning_only() -> None:
    text = "0123456789" * 10
    with pytest.raises(Refused) as refused:
        refuse_overlap([records("calibration0", text)], records("task", text))
    assert text[:40] in str(refused.value)
    assert text[:41] not in str(refused.value)


@given(st.lists(st.text(min_size=1)), st.lists(st.text(min_size=1)), st.text(" \t\n", max_size=3))
def test_exactly_the_records_that_fold_to_a_known_one_are_found(
    known: list[str], asked: list[str], padding: str
) -> None:
    def fold(text: str) -> str:
        return " ".join(text.casefold().split())

    calibration = records("calibration0", *known)
    evaluation = records("task", *(padding + text.upper() for text in asked))
    found = {o.evaluation.line for o in overlaps([calibration], evaluation)}
    shared = {fold(text) for text in known}
    assert found == {i for i, t in enumerate(asked, start=1) if fold(padding + t.upper()) in shared}
