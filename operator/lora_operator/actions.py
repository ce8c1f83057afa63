"""What a plan may do. Each is one effect with a deterministic name; doing it twice does it once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_api.jobcontract import StageRequest
from lora_operator.observed import Switch


@dataclass(frozen=True)
class CreateJob:
    """POST a stage Job; AlreadyExists is success when it is ours."""

    name: str
    request: StageRequest
    attempt: int = 0


@dataclass(frozen=True)
class DeleteJob:
    """DELETE a Job with its uid as precondition, its pods with it."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True)
class ApplyDeployment:
    """Server-side apply the Deployment of a release, and the budget of its pods with it."""

    name: str
    release: str
    digest: str
    candidate: str
    recipe: Mapping[str, Any]
    replicas: int
    benchmark: str = ""


@dataclass(frozen=True)
class GiveUpRelease:
    """Mark the Deployment of a release as given up, for a reason, and scale it to zero."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class DeleteDeployment:
    """DELETE the Deployment of an earlier release with its uid as precondition."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True)
class ApplyService:
    """Server-side apply the Service that clients use, selecting one release."""

    name: str
    release: str
    switch: Switch | None = None


@dataclass(frozen=True)
class EmitEvent:
    """Post one Event at a transition; its reason is the condition's reason."""

    type: str
    reason: str
    message: str


Action = (
    CreateJob
    | DeleteJob
    | ApplyDeployment
    | GiveUpRelease
    | DeleteDeployment
    | ApplyService
    | EmitEvent
)
