"""Condition types and reasons, and the one way to set one. Reasons are event reasons too."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from lora_api.base import ApiModel

MAX_MESSAGE_CHARACTERS = 2048


class ConditionType(StrEnum):
    """Positive polarity, but for the two that kstatus defines. Absent means Unknown."""

    READY = "Ready"  # what this generation asks for is what serves
    AVAILABLE = "Available"  # some gated release answers
    RECONCILING = "Reconciling"  # abnormal-true: work is going on
    STALLED = "Stalled"  # abnormal-true: only a change of the object helps
    RESOLVED = "Resolved"
    MERGED = "Merged"
    QUANTIZED = "Quantized"
    EVALUATED = "Evaluated"
    BENCHMARKED = "Benchmarked"
    GATES_PASSED = "GatesPassed"
    PUBLISHED = "Published"
    VERIFIED = "Verified"


class ConditionStatus(StrEnum):
    """Unfinished is Unknown, not False."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionReason(StrEnum):
    """Reasons that the operator gives; a stage's own (`jobcontract.Reason`) appear as they are."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    REUSED = "Reused"
    SERVING = "Serving"
    PROGRESSING = "Progressing"
    SETTLED = "Settled"
    SUSPENDED = "Suspended"
    INVALID_SPEC = "InvalidSpec"
    NOT_ALLOWED = "NotAllowed"
    PROFILE_NOT_FOUND = "ProfileNotFound"
    ARTIFACT_MISSING = "ArtifactMissing"
    GATES_PASSED = "GatesPassed"
    GATES_FAILED = "GatesFailed"
    GATES_ERROR = "GatesError"
    GATES_INCONCLUSIVE = "GatesInconclusive"
    WAITING_FOR_PODS = "WaitingForPods"
    BAKING = "Baking"
    LOST_READINESS = "LostReadiness"
    NO_CAPACITY = "NoCapacity"
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    VERIFICATION_FAILED = "VerificationFailed"
    NO_RELEASE = "NoRelease"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    QUEUED = "Queued"
    OUT_OF_MEMORY = "OutOfMemory"
    STAGE_CRASHED = "StageCrashed"
    STAGE_TIMED_OUT = "StageTimedOut"
    RESULT_LOST = "ResultLost"
    NAME_CONFLICT = "NameConflict"
    SHARED_STAGE = "SharedStage"
    API_DENIED = "ApiDenied"


class Condition(ApiModel):
    """A standard Kubernetes condition."""

    type: Annotated[str, StringConstraints(max_length=64)]
    status: ConditionStatus
    reason: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z]+$")]
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_CHARACTERS)] = ""
    observed_generation: Annotated[int, Field(ge=0)]
    last_transition_time: str


def set_condition(
    conditions: list[Condition],
    kind: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
    generation: int,
    now: str,
) -> list[Condition]:
    """The list with one condition set; its transition time moves only when its status does."""
    before = next((c for c in conditions if c.type == kind), None)
    since = before.last_transition_time if before and before.status == status else now
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:MAX_MESSAGE_CHARACTERS],
        observed_generation=generation,
        last_transition_time=since,
    )
    kept = [c for c in conditions if c.type != kind]
    order = {t.value: i for i, t in enumerate(ConditionType)}
    return sorted([*kept, new], key=lambda c: order.get(c.type, len(order)))
