"""The page of faults says what the tests show, and nothing more."""

import re

from reliability import PAGE, faults, marked, page

TEXTS = {"fault", "open", "needs"}


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make generate`"


def test_every_mark_names_a_fault_on_the_list_on_a_test() -> None:
    tests = marked()
    assert {fault for test in tests for fault in test.faults} <= set(faults())
    assert [t.name for t in tests if not t.name.startswith("test_")] == []


def test_a_fault_has_a_test_or_says_why_it_has_none() -> None:
    shown = {fault for test in marked() for fault in test.faults}
    for fault, texts in faults().items():
        assert set(texts) <= TEXTS, fault
        assert fault in shown or {"open", "needs"} & set(texts), f"{fault}: no test and no reason"


def test_the_list_has_no_gap_and_refers_to_faults_of_the_list() -> None:
    assert list(faults()) == [f"F{n + 1}" for n in range(len(faults()))]
    named = {fault for text in map(str, faults().values()) for fault in re.findall(r"F\d+", text)}
    assert named <= set(faults())
