"""The shape of a decision: what to do, what to say, and when to look again."""

from dataclasses import dataclass

from lora_api.status import Status
from lora_operator.actions import Action


@dataclass(frozen=True)
class Plan:
    """Output of `planning.plan`.

    Attributes:
        actions: In the order in which they are carried out.
        status: The whole status, written when it differs from the observed one.
        look_again_seconds: When to reconcile even if nothing happens; None: at the next resync.
    """

    actions: tuple[Action, ...]
    status: Status
    look_again_seconds: float | None = None
