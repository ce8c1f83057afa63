"""A denial is laid over what a plan says, look by look, without a word that is new."""

import pytest

from lora_api.conditions import ConditionStatus, ConditionType, set_condition
from lora_api.status import Status
from lora_operator.denial import with_denial

BEGAN, LATER = "2026-11-22T10:00:00Z", "2026-11-22T10:00:05Z"
MESSAGE = 'the API server denies "patch" of deployments: no such label'


def planned(ready: ConditionStatus, time: str) -> Status:
    """What a plan says that knows of no denial."""
    conditions = set_condition([], ConditionType.READY, ready, "Serving", "on 1 pod", 3, BEGAN)
    conditions = set_condition(
        conditions, ConditionType.RECONCILING, ConditionStatus.FALSE, "Done", "", 3, time
    )
    return Status(conditions=conditions)


@pytest.mark.parametrize("ready", [ConditionStatus.TRUE, ConditionStatus.FALSE])
def test_a_denial_that_lasts_is_told_once(ready: ConditionStatus) -> None:
    observed = planned(ready, BEGAN)
    first = with_denial(observed, observed, MESSAGE, 3, BEGAN)
    # The plan believes that its work is done now; what is observed says what is denied.
    again = with_denial(first, planned(ready, LATER), MESSAGE, 3, LATER)
    assert again == first


def test_what_serves_stays_ready_though_a_denial_was_told_before_it_did() -> None:
    waiting = planned(ConditionStatus.FALSE, BEGAN)
    denied = with_denial(waiting, waiting, MESSAGE, 3, BEGAN)
    serves = with_denial(denied, planned(ConditionStatus.TRUE, LATER), MESSAGE, 3, LATER)
    ready = next(c for c in serves.conditions if c.type == ConditionType.READY)
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, "Serving")
