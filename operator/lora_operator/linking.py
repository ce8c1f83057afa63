"""Conditions that something must cure end with the address of their runbook. Pure."""

from lora_api.conditions import MAX_MESSAGE_CHARACTERS, Condition
from lora_api.runbooks import RUNBOOKS, anchor
from lora_api.status import Status


def with_links(status: Status, url: str) -> Status:
    """The status with each cure linked, once; as it is when there is no page.

    Args:
        status: What is to be written.
        url: Address of the page of the runbooks; empty for none.
    """
    if not url:
        return status
    return status.model_copy(update={"conditions": [_with_link(c, url) for c in status.conditions]})


def _with_link(condition: Condition, url: str) -> Condition:
    book = RUNBOOKS.get(condition.reason)
    link = f" ({url}#{anchor(condition.reason)})"
    if book is None or not book.fix or condition.message.endswith(link):
        return condition
    kept = condition.message[: MAX_MESSAGE_CHARACTERS - len(link)]
    return condition.model_copy(update={"message": kept + link})
