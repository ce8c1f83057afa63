"""What the reconciler saw: one frozen picture, read live, on which every decision is made.

Nothing here decides. Times are seconds since the epoch (UTC), so that `planning` compares numbers
and only formats them for status.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_api.jobcontract import Progress, StageFailure, StageResult


@dataclass(frozen=True)
class ObservedObject:
    """The LoRADeployment itself, as the API server returned it."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    annotations: Mapping[str, str]
    deleting: bool = False


@dataclass(frozen=True)
class ObservedPod:
    """One pod of a stage Job or of a release.

    Attributes:
        waiting_reason: Of the container that holds the pod up, e.g. ImagePullBackOff.
        unschedulable: The scheduler's message while the pod cannot be placed, else empty.
        exit_code: Of the main container, once it has terminated.
        terminated_reason: e.g. OOMKilled, Error, Completed.
        termination_message: As written by the stage program.
        container_started_at: When the main container first ran.
    """

    name: str
    uid: str
    ip: str = ""
    ready: bool = False
    phase: str = ""
    image_id: str = ""
    waiting_reason: str = ""
    waiting_message: str = ""
    unschedulable: str = ""
    exit_code: int | None = None
    terminated_reason: str = ""
    termination_message: str = ""
    container_started_at: float | None = None
    restarts: int = 0
    deleting: bool = False


@dataclass(frozen=True)
class ObservedJob:
    """One stage Job with its pods, newest pod last.

    Attributes:
        ours: Owned by this object's uid; a Job of our name that is not ours is never touched.
        outcome: What the stage program wrote, None when nothing readable is there.
        progress: The last progress line of the running pod's log.
        log_tail: Last lines of a failed pod's log, for the message.
        suspended: Somebody holds it back: Kueue, or a person.
        queue: Of Kueue's, that it is in.
        queue_says: Why it is not admitted, where that may be read.
    """

    name: str
    uid: str
    stage: str
    input_hash: str
    candidate: str = ""
    ours: bool = True
    complete: bool = False
    failed: bool = False
    failed_reason: str = ""
    deleting: bool = False
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    accelerators: int = 0
    pods: tuple[ObservedPod, ...] = ()
    outcome: StageResult | StageFailure | None = None
    progress: Progress | None = None
    log_tail: str = ""
    suspended: bool = False
    queue: str = ""
    queue_says: str = ""


@dataclass(frozen=True)
class ObservedDeployment:
    """The Deployment of one release.

    Attributes:
        gave_up: Why this release was given up (a reason), kept on the Deployment itself.
        benchmark: Input hash of the benchmark whose recorded answers its pods must give.
    """

    name: str
    uid: str
    release: str
    digest: str
    candidate: str = ""
    benchmark: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    available: bool = False
    observed_current: bool = True
    gave_up: str = ""
    ours: bool = True
    deleting: bool = False
    created_at: float = 0.0
    pods: tuple[ObservedPod, ...] = ()


@dataclass(frozen=True)
class Switch:
    """How the Service came to select its release: on record on the Service, with the selector.

    Attributes:
        at: Seconds since the epoch.
        previous: The release that it selected before; empty for the first.
        pods: How many pods of the release were Ready then.
        refused: `<release>/<Deployment uid>` that was left because it lost pods, else empty.
    """

    at: float
    previous: str = ""
    pods: int = 0
    refused: str = ""


@dataclass(frozen=True)
class ObservedService:
    """The Service that clients use; what it selects is what serves."""

    name: str
    release: str
    ours: bool = True
    switch: Switch | None = None


@dataclass(frozen=True)
class Observed:
    """All of it."""

    parent: ObservedObject
    jobs: tuple[ObservedJob, ...] = ()
    deployments: tuple[ObservedDeployment, ...] = ()
    service: ObservedService | None = None
