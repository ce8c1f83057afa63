"""A pod's document as an `ObservedPod`: which container holds it up, and how it ended."""

from collections.abc import Iterable, Mapping
from typing import Any

from lora_api.times import epoch_seconds
from lora_operator.manifests.pods import ENGINE_CONTAINER, STAGE_CONTAINER
from lora_operator.observed import ObservedPod

Json = Mapping[str, Any]


def observed_pod(document: Json) -> ObservedPod:
    """Parse one pod; what is not there yet is empty."""
    metadata, status = document["metadata"], document.get("status", {})
    first, main = _init_statuses(status), _main_status(status)
    held_up = next((s for s in first if not _has_succeeded(s)), main)
    waiting = held_up.get("state", {}).get("waiting", {})
    ended = _ended(main)
    # A container that fails before the engine starts says why, as a stage program does.
    failed = next((e for s in first if not _has_succeeded(s) and (e := _ended(s))), ended)
    return ObservedPod(
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP", ""),
        ready=_is_true(status, "Ready"),
        phase=status.get("phase", ""),
        image_id=main.get("imageID", ""),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        unschedulable=_unschedulable(status),
        exit_code=main.get("state", {}).get("terminated", {}).get("exitCode"),
        terminated_reason=ended.get("reason", ""),
        termination_message=failed.get("message", ""),
        container_started_at=_first_start(main),
        restarts=sum(s.get("restartCount", 0) for s in [*first, main]),
        deleting="deletionTimestamp" in metadata,
    )


def created_at(document: Json) -> float:
    """When an object was created, in seconds since the epoch."""
    return epoch_seconds(document["metadata"].get("creationTimestamp", "")) or 0.0


def is_owned_by(document: Json, uid: str) -> bool:
    """Whether the object's controller is the one with that uid."""
    owners: Iterable[Json] = document["metadata"].get("ownerReferences") or ()
    return any(o.get("uid") == uid and o.get("controller") for o in owners)


def _init_statuses(status: Json) -> list[Json]:
    return list(status.get("initContainerStatuses") or ())


def _main_status(status: Json) -> Json:
    ours = (STAGE_CONTAINER, ENGINE_CONTAINER)  # a mesh may have put another beside it
    statuses: Iterable[Json] = status.get("containerStatuses") or ()
    return next((s for s in statuses if s.get("name") in ours), {})


def _has_succeeded(container: Json) -> bool:
    return bool(container.get("state", {}).get("terminated", {}).get("exitCode") == 0)


def _ended(container: Json) -> Json:
    """How the container ended; while it is started again, how it ended the last time."""
    state: Json = container.get("state", {}).get("terminated", {})
    last: Json = container.get("lastState", {}).get("terminated", {})
    return state or last


def _first_start(container: Json) -> float | None:
    """The earliest start that is still known."""
    found = [
        epoch_seconds(state.get("startedAt") or "")
        for part in ("state", "lastState")
        for state in (container.get(part) or {}).values()
    ]
    return min((f for f in found if f is not None), default=None)


def _unschedulable(status: Json) -> str:
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""


def _is_true(status: Json, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or ())
