"""`spec.serving.strategy`: how a successor takes over from the last good release."""

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from lora_api.base import ApiModel, Duration, rule, rules
from lora_api.times import seconds_of

DEFAULT_BAKE_TIME = "10m"
DEFAULT_DRAIN_TIMEOUT = "5m"


class StrategyType(StrEnum):
    """Whether both releases run at once, or the old one makes room first."""

    BLUE_GREEN = "BlueGreen"
    RECREATE = "Recreate"


class BlueGreen(ApiModel):
    """How long the former release is kept; both times count from the switch."""

    bake_time: Duration | None = None
    """While it lasts, the former release takes over again at once if the new one loses a pod that
    it had. 10m where unset; 0s for not at all."""
    drain_timeout: Duration | None = None
    """Streams that began before the switch may last so long; the former release is not removed
    earlier. 5m where unset."""


class Strategy(ApiModel):
    """How the successor takes over from the last good release."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.blueGreen) || self.type == 'BlueGreen'",
                "strategy.blueGreen has no meaning with type Recreate; remove it",
            )
        )
    }

    type: StrategyType = StrategyType.BLUE_GREEN
    """BlueGreen needs accelerators for two releases. Recreate does with those of one: the old pods
    end first, and nothing answers until the successor is verified or given up."""
    blue_green: BlueGreen | None = None
    start_deadline: Duration = "15m"
    """From container start to ready; then the candidate is given up."""

    @model_validator(mode="after")
    def _names_its_own_member(self) -> Self:
        if self.blue_green and self.type is not StrategyType.BLUE_GREEN:
            raise ValueError("strategy.blueGreen has no meaning with type Recreate; remove it")
        return self

    @property
    def bake_seconds(self) -> int:
        """How long a lost pod of the new release switches back."""
        if self.type is StrategyType.RECREATE:
            return 0  # the former release has no pods to go back to
        own = self.blue_green.bake_time if self.blue_green else None
        return seconds_of(own or DEFAULT_BAKE_TIME)

    @property
    def keep_seconds(self) -> int:
        """How long the former release is kept after the switch."""
        if self.type is StrategyType.RECREATE:
            return 0
        own = self.blue_green.drain_timeout if self.blue_green else None
        return max(self.bake_seconds, seconds_of(own or DEFAULT_DRAIN_TIMEOUT))
