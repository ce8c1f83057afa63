"""What must hold at every write that reaches the API server, checked against its live objects."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from canned_stages import CannedStages
from faultlab.adminapi import AdminApi
from faultlab.proxy import Reply
from faultlab.writes import Address, Point, Write
from gitops import in_argo_cd
from lora_api import GROUP, PLURAL, VERSION
from lora_api.naming import LABEL_RELEASE, LABEL_STAGE

Json = dict[str, Any]


@dataclass
class Watchman:
    """Of one namespace.

    Attributes:
        violations: What did not hold.
        trace: Points of the accepted writes.
        counts: Accepted creations and deletions by (verb, kind, label).
        told: Objects with each status that was written, and whether they may look healthy.
        tried: Writes, accepted or not.
        looks: How often the operator has begun to look at the object.
    """

    api: AdminApi
    namespace: str
    name: str
    stages: CannedStages
    violations: list[str] = field(default_factory=list)
    trace: list[Point] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    told: list[tuple[Json, bool]] = field(default_factory=list)
    tried: int = 0
    looks: int = 0
    _observed_generation: int = -1

    def read(self, address: Address) -> None:
        """A look begins with the object itself."""
        self.looks += (address.plural, address.name) == (PLURAL, self.name)

    async def before(self, write: Write) -> None:
        """Safety, before it is carried out."""
        self.tried += 1
        address, verb = write.address, write.point.verb
        if verb == "delete":
            await self._deletion(write)
        elif address.plural == "jobs":
            await self._job(write)
        elif address.plural == "services":
            await self._selection(write)
        elif address.part == "status":
            self._hold(
                bool(write.document["metadata"].get("resourceVersion")),
                "a status is written over the version that was read", write,
            )  # fmt: skip
        known = ("jobs", "services", "deployments", "poddisruptionbudgets", "events", PLURAL)
        self._hold(address.plural in known, "only our kinds are written", write)
        is_status = address.plural != PLURAL or address.part == "status"
        self._hold(is_status, "the object itself stays the user's", write)

    async def after(self, write: Write, reply: Reply) -> None:
        """Count it, and look at what it has told."""
        if not reply.accepted:
            return
        self.trace.append(write.point)
        if write.point.verb in ("create", "delete"):
            self.counts[write.point[:3]] += 1
        found: Json = json.loads(reply.body)
        version = write.document.get("metadata", {}).get("resourceVersion")
        changed = version is None or found["metadata"].get("resourceVersion") != version
        self._hold(changed, "nothing is written that changes nothing", write)
        if write.address.part == "status":
            await self._telling(write, found)

    async def _job(self, write: Write) -> None:
        metadata = write.document["metadata"]
        self._hold("generateName" not in metadata, "a Job's name is deterministic", write)
        stage = metadata["labels"][LABEL_STAGE]
        path = (
            f"/apis/batch/v1/namespaces/{self.namespace}/jobs?labelSelector={LABEL_STAGE}={stage}"
        )
        rivals = [
            j["metadata"]["name"]
            for j in await self.api.items(path)
            if is_unfinished(j) and j["metadata"]["name"] != metadata.get("name")
        ]
        self._hold(not rivals, f"one live Job a stage, there is {rivals}", write)
        owner = await self._owner()
        uids = [o["uid"] for o in metadata["ownerReferences"]]
        self._hold(
            owner is not None and uids == [owner["metadata"]["uid"]], "the owner is live", write
        )

    async def _selection(self, write: Write) -> None:
        release = write.document["spec"]["selector"][LABEL_RELEASE]
        live = await self._find("/api/v1", "services", self.name)
        if live is not None and live["spec"]["selector"].get(LABEL_RELEASE) == release:
            return
        self._hold(release in self.stages.published, "only what was published is selected", write)
        self._hold(release in self.stages.verified, "only what was verified is selected", write)
        deployment = await self._find("/apis/apps/v1", "deployments", f"{self.name}-{release}")
        conditions = (deployment or {}).get("status", {}).get("conditions") or ()
        available = any(c["type"] == "Available" and c["status"] == "True" for c in conditions)
        self._hold(available, "only what is Available is selected", write)

    async def _deletion(self, write: Write) -> None:
        uid = write.document.get("preconditions", {}).get("uid")
        self._hold(bool(uid), "a deletion names the uid", write)
        if write.address.plural != "deployments":
            return
        service = await self._find("/api/v1", "services", self.name)
        selected = (service or {}).get("spec", {}).get("selector", {}).get(LABEL_RELEASE)
        self._hold(
            write.address.name != f"{self.name}-{selected}", "what serves is not deleted", write
        )

    async def _telling(self, write: Write, found: Json) -> None:
        status, generation = found["status"], found["metadata"]["generation"]
        observed = status.get("observedGeneration", 0)
        self._hold(
            self._observed_generation <= observed <= generation,
            f"observedGeneration {observed} grows, up to {generation}", write,
        )  # fmt: skip
        self._observed_generation = observed
        service = await self._find("/api/v1", "services", self.name)
        selected = (service or {}).get("spec", {}).get("selector", {}).get(LABEL_RELEASE, "")
        asked = found["spec"]["adapters"][0]["uri"]
        may_be_healthy = self.stages.published.get(selected) == asked
        self.told.append((found, may_be_healthy))
        ready = [c for c in status["conditions"] if c["type"] == "Ready" and c["status"] == "True"]
        healthy = in_argo_cd(found)["status"] == "Healthy"
        self._hold(may_be_healthy or not ready, "Ready only when what is asked for serves", write)
        self._hold(may_be_healthy or not healthy, "Healthy in Argo CD only then", write)

    async def _owner(self) -> Json | None:
        return await self._find(f"/apis/{GROUP}/{VERSION}", PLURAL, self.name)

    async def _find(self, prefix: str, plural: str, name: str) -> Json | None:
        return await self.api.find(f"{prefix}/namespaces/{self.namespace}/{plural}/{name}")

    def _hold(self, holds: bool, law: str, write: Write) -> None:
        if not holds:
            self.violations.append(f"{write.point}: not so: {law}")


def is_unfinished(job: Json) -> bool:
    """Whether a Job that stays has neither completed nor failed."""
    conditions = job.get("status", {}).get("conditions") or ()
    over = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
    return not over and "deletionTimestamp" not in job["metadata"]
