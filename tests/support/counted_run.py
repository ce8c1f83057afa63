"""A planner's world whose status writes reach the metrics, as the operator's looks do."""

from lora_api.status import Status
from lora_operator.metrics import Metrics
from planning_world import World


def run_counted(metrics: Metrics, world: World) -> None:
    """Let the world settle and hand every status that is written to the metrics, as a look does."""
    for _ in range(400):
        before, writes = Status.model_validate(world.status), world.writes
        world.reconcile()
        if world.writes != writes:
            metrics.wrote(before, Status.model_validate(world.status))
        elif not world.step_forward():
            return
    raise AssertionError("it does not settle")
