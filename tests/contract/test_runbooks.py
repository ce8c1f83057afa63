"""Every reason that status can give is explained, and nothing else is."""

from lora_api.conditions import ConditionReason
from lora_api.jobcontract import Reason
from lora_api.runbooks import RUNBOOKS

TYPED = {r.value for r in (*ConditionReason, *Reason)}


def test_every_typed_reason_has_an_entry() -> None:
    assert TYPED - set(RUNBOOKS) == set(), "write them into crds/lora_api/runbooks.yaml"


def test_no_entry_explains_a_reason_that_there_is_not() -> None:
    assert set(RUNBOOKS) - TYPED == set()


def test_what_can_be_cured_says_how_to_look_too() -> None:
    assert [r for r, book in RUNBOOKS.items() if bool(book.look) != bool(book.fix)] == []


def test_every_failure_of_a_stage_program_says_how_to_fix_it() -> None:
    assert [r for r in Reason if not RUNBOOKS[r].fix] == []


def test_no_entry_is_a_bare_word() -> None:
    for reason, book in RUNBOOKS.items():
        for text in filter(None, (book.means, book.look, book.fix)):
            assert len(text.split()) >= 5, reason
            assert text.rstrip().endswith((".", "?")), reason
