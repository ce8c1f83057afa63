"""What has ended between two statuses of an object: read off them, so that each is told once.

Whoever counts or traces asks after the later status was written, and a status is written by one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lora_api.status import StageState, StageStatus, Status


class StageEnd(NamedTuple):
    """An attempt at a stage that has ended, or a stage whose result was there.

    Attributes:
        stage: As the later status has it.
        accelerator_seconds: Of this attempt; 0 where the result was there.
    """

    stage: StageStatus
    accelerator_seconds: int

    @property
    def succeeded(self) -> bool:
        """Else it failed, for good or to be tried again."""
        return self.stage.state is StageState.SUCCEEDED

    @property
    def attempt(self) -> int:
        """Counted from 1; what waits for its next try has counted the failed one already."""
        return self.stage.attempt + (0 if self.stage.state is StageState.WAITING else 1)


def stage_ends(before: Status, after: Status) -> Iterator[StageEnd]:
    """What has ended, in the order of the later status."""
    known = {(s.name, s.input_hash): s for s in before.stages}
    for stage in after.stages:
        earlier = known.get((stage.name, stage.input_hash))
        if stage.reused:
            if earlier is None or earlier.state is not StageState.SUCCEEDED:
                yield StageEnd(stage, 0)
        elif stage.completed_at and (earlier is None or earlier.completed_at != stage.completed_at):
            held = stage.accelerator_seconds - (earlier.accelerator_seconds if earlier else 0)
            yield StageEnd(stage, max(0, held))
