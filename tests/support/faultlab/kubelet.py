"""Plays all pods of an API server, by watches, in step with what the operator has told.

A stage's pod starts once status has told of its Job, and ends once status says that its stage runs,
so that every run of the same life makes the same writes, whatever the machine is doing.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from canned_stages import CannedStages
from faultlab.adminapi import AdminApi
from lora_api import GROUP, PLURAL, VERSION
from lora_api.naming import LABEL_NAME, LABEL_STAGE
from stand_in_kubelet import ended_status, is_ready, ready_status, running_status

Json = dict[str, Any]
_PATIENCE_SECONDS = 3.0
"""A kubelet waits for nobody: what status does not tell for so long is not waited for."""


@dataclass
class Place:
    """What the kubelet knows of one namespace."""

    stages: CannedStages
    status: Json = field(default_factory=dict)
    serving_pods_start: bool = True

    def tells(self, job: str, **what: str) -> bool:
        """Whether status tells this of a Job; an empty text stands for any."""
        stages = [s for s in self.status.get("stages") or () if s.get("job") == job]
        return any(all(s.get(k) and v in ("", s[k]) for k, v in what.items()) for s in stages)


class LabKubelet:
    """Runs the pods of all registered namespaces until it is cancelled.

    Args:
        api: The API server.
        in_step: Wait for what status tells; not where a namespace has many objects.
    """

    def __init__(self, api: AdminApi, *, in_step: bool = True) -> None:
        self._api = api
        self._patience_seconds = _PATIENCE_SECONDS if in_step else 0.0
        self._pods: dict[str, Json] = {}
        self._since: dict[str, float] = {}
        self._busy: set[str] = set()
        self._addresses = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self.places: dict[str, Place] = {}

    def is_busy(self, namespace: str) -> bool:
        """Whether a stage's pod is there that has not ended."""
        return any(
            pod["metadata"]["namespace"] == namespace and _is_of_stage(pod)
            for pod in self._pods.values()
        )

    async def run(self) -> None:
        """Until cancelled."""
        objects = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch("/api/v1/pods", self._pod_changed, LABEL_NAME))
                group.create_task(self._watch(objects, self._object_changed, ""))
                group.create_task(self._look())
        finally:
            for task in self._tasks:
                task.cancel()

    async def _watch(self, path: str, changed: Callable[[str, Json], None], selector: str) -> None:
        while True:
            query = f"labelSelector={selector}" if selector else ""
            listed = await self._api.get(f"{path}?{query}")
            for item in listed["items"]:
                changed("ADDED", item)
            version = listed["metadata"]["resourceVersion"]
            url = f"{path}?watch=1&resourceVersion={version}&{query}"
            try:
                async with self._api.stream(url) as response:
                    while line := await response.content.readline():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        changed(event["type"], event["object"])
            except (aiohttp.ClientError, TimeoutError, ValueError):
                await asyncio.sleep(0.5)

    def _object_changed(self, kind: str, found: Json) -> None:
        if place := self.places.get(found["metadata"]["namespace"]):
            place.status = found.get("status", {})

    def _pod_changed(self, kind: str, pod: Json) -> None:
        uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase", "Pending")
        over = phase in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]
        if kind == "DELETED" or over or pod["metadata"]["namespace"] not in self.places:
            self._pods.pop(uid, None)
            return
        known = self._pods.get(uid)
        if known is None or known["status"].get("phase") != phase:
            self._since[uid] = time.monotonic()
        self._pods[uid] = pod

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for uid, pod in list(self._pods.items()):
                if pod["metadata"]["namespace"] not in self.places:
                    del self._pods[uid]
                    continue
                if uid in self._busy:
                    continue
                status = self._next_status(pod)
                if status is not None:
                    self._busy.add(uid)
                    task = asyncio.create_task(self._write(uid, pod, status))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def _next_status(self, pod: Json) -> Json | None:
        metadata, place = pod["metadata"], self.places[pod["metadata"]["namespace"]]
        waited = time.monotonic() - self._since[metadata["uid"]]
        job = metadata["ownerReferences"][0]["name"] if _is_of_stage(pod) else ""
        if pod.get("status", {}).get("phase", "Pending") == "Pending":
            if job and not place.tells(job, startedAt="") and waited < self._patience_seconds:
                return None
            number = next(self._addresses)
            return running_status(pod, f"10.77.{number // 250 % 250}.{number % 250 + 1}")
        if not job:
            ready = is_ready(pod)
            return ready_status(pod, True) if place.serving_pods_start and not ready else None
        if not place.tells(job, state="Running") and waited < self._patience_seconds:
            return None
        ended = place.stages.run(pod)
        return ended_status(pod, ended) if ended else None

    async def _write(self, uid: str, pod: Json, status: Json) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        try:
            answer = await self._api.merge(path, {"metadata": {"uid": uid}, "status": status})
            if answer is not None:
                self._pod_changed("MODIFIED", answer)
            else:
                self._pods.pop(uid, None)
        finally:
            self._busy.discard(uid)


def _is_of_stage(pod: Json) -> bool:
    return LABEL_STAGE in pod["metadata"].get("labels", {})
