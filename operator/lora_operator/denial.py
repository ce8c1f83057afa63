"""What status says when the API server denied us something in the last look.

A plan does not know what happens to its actions, so a denial is remembered and laid over the next
status, until the actions get through.
"""

from lora_api.conditions import (
    ConditionReason,
    ConditionStatus,
    ConditionType,
    set_condition,
)
from lora_api.status import Phase, Status
from lora_operator.actions import EmitEvent

REASON = ConditionReason.API_DENIED


def with_denial(before: Status, status: Status, message: str, generation: int, time: str) -> Status:
    """The status that tells the denial; what serves keeps being Ready.

    Args:
        before: The observed status: a denial that it tells already has begun then, not now.
        status: What the plan says.
        message: The API server's words.
        generation: Of the object.
        time: RFC 3339.
    """
    told = f"{message}; grant the right, raise the quota or correct the object"
    ready = next((c for c in status.conditions if c.type == ConditionType.READY), None)
    serves = ready is not None and ready.status is ConditionStatus.TRUE
    changes = {ConditionType.RECONCILING: ConditionStatus.TRUE}
    if not serves:
        changes[ConditionType.READY] = ConditionStatus.UNKNOWN
    known = {c.type: c for c in before.conditions if c.reason == REASON and c.type in changes}
    conditions = [known.get(c.type, c) for c in status.conditions]
    for kind, value in changes.items():
        conditions = set_condition(conditions, kind, value, REASON, told, generation, time)
    summary = status.summary if serves else status.summary.model_copy(update={"reason": REASON})
    phase = status.phase if serves else Phase.WAITING
    return status.model_copy(update={"conditions": conditions, "summary": summary, "phase": phase})


def denial_events(before: Status, after: Status) -> list[EmitEvent]:
    """The event of the transition into a denial."""
    if _told(before):
        return []
    return [EmitEvent("Warning", REASON, message) for message in _told(after)[:1]]


def _told(status: Status) -> list[str]:
    return [c.message for c in status.conditions if c.reason == REASON]
