"""Conditions that something must cure link their runbook."""

import pytest

from lora_api.conditions import MAX_MESSAGE_CHARACTERS, Condition, ConditionReason, ConditionStatus
from lora_api.status import Status
from lora_operator.linking import with_links

PAGE = "https://docs.example/runbooks.html"


def status(reason: str, message: str = "Secret s3 is missing; create it") -> Status:
    told = Condition(
        type="Ready", status=ConditionStatus.UNKNOWN, reason=reason, message=message,
        observed_generation=1, last_transition_time="2026-11-23T10:00:00Z",
    )  # fmt: skip
    return Status(conditions=[told])


def message(of: Status) -> str:
    return of.conditions[0].message


def test_what_must_be_cured_ends_with_the_address_of_its_runbook() -> None:
    linked = with_links(status("CredentialsMissing"), PAGE)
    assert message(linked) == f"Secret s3 is missing; create it ({PAGE}#credentialsmissing)"


def test_a_link_is_written_once() -> None:
    linked = with_links(status("CredentialsMissing"), PAGE)
    assert with_links(linked, PAGE) == linked


@pytest.mark.parametrize("reason", [ConditionReason.SERVING, ConditionReason.PROGRESSING])
def test_what_needs_no_cure_has_no_link(reason: ConditionReason) -> None:
    assert with_links(status(reason), PAGE) == status(reason)


def test_without_a_page_nothing_is_linked() -> None:
    assert with_links(status("CredentialsMissing"), "") == status("CredentialsMissing")


def test_the_longest_message_keeps_its_link_and_its_bound() -> None:
    linked = with_links(status("GatesFailed", "x" * MAX_MESSAGE_CHARACTERS), PAGE)
    assert len(message(linked)) == MAX_MESSAGE_CHARACTERS
    assert message(linked).endswith(f"({PAGE}#gatesfailed)")
