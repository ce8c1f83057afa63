"""Stage programs that take seconds and sometimes fail, so that there is something to draw."""

import time
import zlib
from dataclasses import dataclass, field
from typing import Any

from canned_stages import CannedStages
from lora_api.jobcontract import (
    REQUEST_ENV,
    ExitCode,
    Reason,
    Stage,
    StageCall,
    StageFailure,
    StageRequest,
)
from stand_in_kubelet import Ended, environment_of

SECONDS = {
    Stage.RESOLVE: 1, Stage.MERGE: 4, Stage.QUANTIZE: 10, Stage.EVALUATE: 6, Stage.BENCHMARK: 8,
    Stage.REPORT: 1, Stage.PUBLISH: 1, Stage.VERIFY: 3,
}  # fmt: skip
ON_ACCELERATORS = (Stage.QUANTIZE, Stage.EVALUATE, Stage.BENCHMARK)
_TROUBLES = {
    (Stage.RESOLVE, 4): (Reason.CREDENTIALS_MISSING, 3),
    (Stage.MERGE, 6): (Reason.STORE_UNREACHABLE, 2),
    (Stage.BENCHMARK, 8): (Reason.STORE_UNREACHABLE, 1),
}
"""By stage and the last digit of an object's number: the reason, and how many attempts it ends."""


@dataclass
class BusyStages(CannedStages):
    """As canned, but a pod runs for a while; objects whose number ends with 3 run out of memory."""

    began: dict[str, float] = field(default_factory=dict)
    """By the pod's uid, monotonic seconds."""
    failed: dict[tuple[Stage, str], int] = field(default_factory=dict)

    def run(self, pod: dict[str, Any]) -> Ended | None:
        """What the pod ends with; None while it runs."""
        request = StageRequest.model_validate_json(environment_of(pod)[REQUEST_ENV])
        stage, uid = request.call.stage, pod["metadata"]["uid"]
        began = self.began.setdefault(uid, time.monotonic())
        if time.monotonic() - began < seconds_of(request.call):
            return None
        return self._failure(stage, request.run.name) or super().run(pod)

    def _failure(self, stage: Stage, name: str) -> Ended | None:
        digit = int(name[-1])
        if (stage, digit) == (Stage.QUANTIZE, 3):
            return Ended(137, reason="OOMKilled")
        reason, times = _TROUBLES.get((stage, digit), (None, 0))
        failed = self.failed.get((stage, name), 0)
        if reason is None or failed >= times:
            return None
        self.failed[stage, name] = failed + 1
        failure = StageFailure(failure=reason, message="not yet; create it")
        return Ended(ExitCode.WAITING, failure.model_dump_json(by_alias=True))

    def _work(self, call: StageCall) -> dict[str, Any]:
        held = round(seconds_of(call)) if call.stage in ON_ACCELERATORS else 0
        return super()._work(call) | {"accelerator_seconds": held}


def seconds_of(call: StageCall) -> float:
    """How long it takes, between 0.6 and 1.6 times what is usual."""
    share = zlib.crc32(call.input_hash.encode()) % 100 / 100
    return SECONDS.get(call.stage, 1) * (0.6 + share)
