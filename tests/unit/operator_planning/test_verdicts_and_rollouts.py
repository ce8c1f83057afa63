"""What was measured, the verdict on it, and that nothing but Passed ever comes near a rollout."""

from dataclasses import dataclass, field

import pytest

from builders import estimate_row
from lora_api.estimates import comparison
from lora_api.gates import OUTPUT_TOKENS_PER_SECOND, Measurements, at_concurrency
from lora_api.jobcontract import Stage, StageCall
from planning_world import World

THROUGHPUT = at_concurrency(OUTPUT_TOKENS_PER_SECOND, 1)
SPEED = comparison(THROUGHPUT, "quantized", "base")
LIMIT = 0.95
"""decodeSpeed's default: quantized by base, at least."""


@dataclass
class Bench(World):
    """A world whose benchmark measures this of the speed; None where it measured nothing."""

    speed: dict[str, str] | None = field(default_factory=dict)
    base: str | None = "100"

    def _measured(self, call: StageCall) -> Measurements:
        rows = super()._measured(call)
        if call.stage is not Stage.BENCHMARK:
            return rows
        by_condition = {"base": self.base} if self.base is not None else {}
        kept = {key: row for key, row in rows.items() if key != SPEED}
        kept[THROUGHPUT] = {"quantized": "150"} | by_condition
        return kept if self.speed is None else kept | {SPEED: self.speed}


def speed(value: float, half_width: float = 0.001) -> dict[str, str]:
    return estimate_row(value, half_width, blocks="8")


@pytest.mark.fault("F31")
def test_a_speed_whose_bound_is_exactly_at_the_limit_rolls_out() -> None:
    world = Bench(speed=speed(LIMIT + 0.001))
    world.settle()
    assert world.condition("Ready")[0] == "True"
    assert len(world.selected) == 1


@pytest.mark.fault("F31")
@pytest.mark.parametrize(
    ("measured", "base", "reason"),
    [
        (speed(LIMIT - 0.1), "100", "GatesFailed"),
        (speed(LIMIT, 0.1), "100", "GatesInconclusive"),
        (speed(LIMIT + 0.0009), "100", "GatesInconclusive"),
        (speed(1.5) | {"value": "nan"}, "100", "GatesError"),
        (speed(1.5) | {"value": "-1.5", "lower": "-1.6", "upper": "-1.4"}, "100", "GatesError"),
        (None, "100", "GatesError"),
        (None, None, "GatesError"),
    ],
    ids=[
        "too slow", "too noisy", "a bound just below the limit", "not a number", "negative",
        "not measured", "the base run failed",
    ],
)  # fmt: skip
def test_nothing_but_passed_rolls_out_when_the_speed_is(
    measured: dict[str, str] | None, base: str | None, reason: str
) -> None:
    world = Bench(speed=measured, base=base)
    world.settle()
    assert world.condition("GatesPassed")[1] == reason
    assert world.condition("Ready")[0] != "True"
    assert (world.published, world.deployments, world.selected) == (set(), {}, [])
