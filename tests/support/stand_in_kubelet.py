"""Plays the kubelet on a control plane without nodes: pods run, end and become ready.

Only pod status is written, as a kubelet does; Jobs, Deployments and owner references are the real
controllers' work. What a stage's container would do is answered by `program`. It knows nothing of
scheduling, images or volumes, and of containers only their states.
"""

import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from localcluster.console import ClusterError
from localcluster.kubeapi import KubeApi

Json = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    exit_code: int
    message: str = ""
    reason: str = ""


Program = Callable[[Json], Ended | None]
"""What a pod's main container does: None while it runs on."""


class StandInKubelet:
    """Runs the pods of one namespace until `stop`.

    Args:
        api: The API server.
        namespace: Whose pods.
        program: Asked of each running pod of a Job, again and again, until it has ended.
        is_ready: Asked of each pod of a Deployment.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        program: Program,
        is_ready: Callable[[Json], bool] = lambda pod: True,
    ) -> None:
        self._api, self._namespace = api, namespace
        self._program, self._is_ready = program, is_ready
        self._addresses = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self.error: Exception | None = None

    def __enter__(self) -> "StandInKubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)
        if self.error:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0.2):
                with suppress(OSError):  # the API server restarts
                    found = self._api.get(f"/api/v1/namespaces/{self._namespace}/pods")
                    for pod in (found or {}).get("items", ()):
                        self._look(pod)
        except Exception as error:  # told by the test that uses us
            self.error = error

    def _look(self, pod: Json) -> None:
        phase = pod.get("status", {}).get("phase", "Pending")
        owner = (pod["metadata"].get("ownerReferences") or [{}])[0].get("kind")
        if "deletionTimestamp" in pod["metadata"] or phase in ("Succeeded", "Failed"):
            return
        if phase == "Pending":
            self._write(pod, running_status(pod, f"10.77.0.{next(self._addresses)}"))
        elif owner == "Job" and (ended := self._program(pod)):
            self._write(pod, ended_status(pod, ended))
        elif owner == "ReplicaSet" and self._is_ready(pod) != is_ready(pod):
            self._write(pod, ready_status(pod, self._is_ready(pod)))

    def _write(self, pod: Json, status: Json) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{self._namespace}/pods/{metadata['name']}/status"
        try:
            self._api.patch(path, {"metadata": {"uid": metadata["uid"]}, "status": status})
        except ClusterError as error:
            if ": 404 " not in str(error) and ": 409 " not in str(error):  # gone meanwhile
                raise


def running_status(pod: Json, address: str) -> Json:
    """Status of a pod whose containers have just started; init containers have ended."""
    state = {"running": {"startedAt": _now()}}
    started = not pod["spec"].get("initContainers")
    fetched = [
        _container(c, {"terminated": {"exitCode": 0, "reason": "Completed"}}, ready=True)
        for c in pod["spec"].get("initContainers", ())
    ]
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": _now(),
        "conditions": _conditions(PodScheduled=True, Initialized=True, Ready=started),
        "initContainerStatuses": fetched,
        "containerStatuses": [
            _container(c, state, ready=started) for c in pod["spec"]["containers"]
        ],
    }


def ended_status(pod: Json, ended: Ended) -> Json:
    """Status of a running pod of a Job whose container has just ended."""
    reason = ended.reason or ("Completed" if ended.exit_code == 0 else "Error")
    (before,) = pod["status"]["containerStatuses"]
    state = {
        "terminated": {
            "exitCode": ended.exit_code,
            "reason": reason,
            "message": ended.message,
            "startedAt": before["state"]["running"]["startedAt"],
            "finishedAt": _now(),
        }
    }
    (container,) = pod["spec"]["containers"]
    return {
        "phase": "Succeeded" if ended.exit_code == 0 else "Failed",
        "conditions": _conditions(PodScheduled=True, Initialized=True, Ready=False),
        "containerStatuses": [_container(container, state, ready=False)],
    }


def ready_status(pod: Json, ready: bool) -> Json:
    """Status of a running pod that has become Ready, or ceased to be."""
    statuses = [{**s, "ready": ready} for s in pod["status"]["containerStatuses"]]
    conditions = _conditions(
        PodScheduled=True, Initialized=True, ContainersReady=ready, Ready=ready
    )
    return {"conditions": conditions, "containerStatuses": statuses}


def is_ready(pod: Json) -> bool:
    """Whether a pod's status says so."""
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def environment_of(pod: Json) -> dict[str, str]:
    """Literal variables of the main container."""
    (container,) = pod["spec"]["containers"]
    return {e["name"]: e.get("value", "") for e in container["env"]}


def _container(container: Json, state: Json, ready: bool) -> Json:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"{container['image']}@sha256:{'0' * 64}",
        "ready": ready,
        "started": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _conditions(**values: bool) -> list[Json]:
    return [
        {"type": kind, "status": str(value), "lastTransitionTime": _now()}
        for kind, value in values.items()
    ]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251 - the edge
