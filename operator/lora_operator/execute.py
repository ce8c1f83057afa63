"""Effects: carries out a plan's actions and writes its status.

Every action has a deterministic name, so that doing it twice does it once; what has happened
already counts as done. Only our own objects are touched: deletes carry the uid, applies the version
that was just read.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from lora_api import API_VERSION, KIND
from lora_api.naming import ANNOTATION_GAVE_UP, ANNOTATION_INPUT_HASH
from lora_api.spec import Spec
from lora_api.status import Status
from lora_operator.actions import (
    Action,
    ApplyDeployment,
    ApplyService,
    CreateJob,
    DeleteDeployment,
    DeleteJob,
    EmitEvent,
    GiveUpRelease,
)
from lora_operator.asking import spec_of
from lora_operator.cluster import (
    BUDGETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LORA_DEPLOYMENTS,
    POLICIES,
    SERVICES,
    AlreadyExists,
    Cluster,
    Conflict,
    Denied,
    Kind,
    NotFound,
    Unavailable,
)
from lora_operator.intent import is_as_intended
from lora_operator.manifests.budget import release_budget
from lora_operator.manifests.events import event
from lora_operator.manifests.jobs import stage_job
from lora_operator.manifests.network import serving_policy, stage_policy
from lora_operator.manifests.serving import release_deployment, release_service
from lora_operator.observed import ObservedObject
from lora_operator.podnetwork import PodNetwork
from lora_operator.podstate import is_owned_by
from lora_operator.settings import Settings

logger = logging.getLogger(__name__)

Json = dict[str, Any]


class Executor:
    """Carries out the actions of one object's plan.

    `Denied` is raised on, for status to tell; `Conflict` means that the picture was stale.
    """

    def __init__(self, cluster: Cluster, settings: Settings, parent: ObservedObject) -> None:
        self._cluster, self._settings, self._parent = cluster, settings, parent

    async def execute(self, action: Action) -> None:
        """Do one thing, or find it done."""
        match action:
            case CreateJob():
                await self._create_job(action)
            case DeleteJob():
                await self._delete(JOBS, action.name, action.uid, action.why)
            case ApplyDeployment():
                await self._apply_deployment(action)
            case GiveUpRelease():
                await self._give_up(action)
            case DeleteDeployment():
                await self._delete(DEPLOYMENTS, action.name, action.uid, action.why)
            case ApplyService():
                document = release_service(self._parent, self._spec(), action)
                await self._apply(SERVICES, document, self._parent.uid)
            case EmitEvent():
                raise TypeError("events are posted with the status that they tell of")

    async def _create_job(self, action: CreateJob) -> None:
        document = stage_job(self._parent, self._spec(), self._settings, action)
        await self._apply_policy(stage_policy)
        try:
            await self._cluster.create(JOBS, document)
            self._log("created Job %s", action.name)
        except AlreadyExists:
            live = await self._cluster.get(JOBS, self._parent.namespace, action.name)
            if live is not None and not _is_same_job(live, document, self._parent):
                self._log("Job %s exists and is not ours; it is left alone", action.name)

    async def _apply_deployment(self, action: ApplyDeployment) -> None:
        document = release_deployment(self._parent, self._spec(), self._settings, action)
        await self._apply_policy(serving_policy)
        uid = await self._apply(DEPLOYMENTS, document, self._parent.uid)
        budget = release_budget(self._parent, action, uid) if uid else None
        if budget:
            await self._apply(BUDGETS, budget, uid)

    async def _apply_policy(
        self, policy: Callable[[ObservedObject, Spec, PodNetwork], Json]
    ) -> None:
        """Before the pods that it holds for, so that none ever runs without it."""
        if network := self._settings.pod_network:
            document = policy(self._parent, self._spec(), network)
            await self._apply(POLICIES, document, self._parent.uid)

    async def _apply(self, kind: Kind, document: Json, owner_uid: str) -> str:
        """Apply over the version that is read now, unless it is as intended or not ours.

        Returns:
            The object's uid; empty when it is another owner's or on its way out.
        """
        name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
        live = await self._cluster.get(kind, namespace, name)
        if live is not None:
            if not is_owned_by(live, owner_uid):
                self._log("%s %s exists and is not ours; it is left alone", kind.kind, name)
                return ""
            if "deletionTimestamp" in live["metadata"]:
                return ""
            if is_as_intended(live, document):
                return str(live["metadata"]["uid"])
            document = _over(document, live)
        applied = await self._cluster.apply(kind, document)
        self._log("applied %s %s", kind.kind, name)
        return str(applied["metadata"]["uid"])

    async def _give_up(self, action: GiveUpRelease) -> None:
        change = {
            "metadata": {"uid": action.uid, "annotations": {ANNOTATION_GAVE_UP: action.reason}},
            "spec": {"replicas": 0},
        }
        try:
            await self._cluster.patch(DEPLOYMENTS, self._parent.namespace, action.name, change)
            self._log("gave up Deployment %s: %s", action.name, action.reason)
        except NotFound:
            pass

    async def _delete(self, kind: Kind, name: str, uid: str, why: str) -> None:
        try:
            await self._cluster.delete(kind, self._parent.namespace, name, uid)
            self._log("deleted %s %s: %s", kind.kind, name, why)
        except (NotFound, Conflict):
            pass  # gone, or another object has its name now: this one is gone

    def _spec(self) -> Spec:
        spec = spec_of(self._parent.spec, self._settings.profiles)
        assert isinstance(spec, Spec)  # the plan was made of it
        return spec

    def _log(self, message: str, *arguments: object) -> None:
        logger.info(f"%s/%s: {message}", self._parent.namespace, self._parent.name, *arguments)


async def write_status(cluster: Cluster, parent: ObservedObject, status: Status) -> None:
    """Write the status over the version that was observed.

    Raises:
        Conflict: The object has changed since.
        NotFound: It is gone.
    """
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": parent.name,
            "namespace": parent.namespace,
            "resourceVersion": parent.resource_version,
        },
        "status": status.to_json(),
    }
    await cluster.apply_status(LORA_DEPLOYMENTS, document)


async def post_event(
    cluster: Cluster, parent: ObservedObject, action: EmitEvent, time: str
) -> None:
    """Post an Event; one that is there already is brought up to date. Never fails a look.

    Args:
        cluster: Where.
        parent: What the Event is about.
        action: What it says.
        time: RFC 3339.
    """
    document = event(parent, action, time)
    try:
        try:
            await cluster.create(EVENTS, document)
        except AlreadyExists:
            name, change = document["metadata"]["name"], {"lastTimestamp": time}
            await cluster.patch(EVENTS, parent.namespace, name, change)
    except (Denied, NotFound, Conflict, Unavailable) as error:
        logger.warning("%s/%s: event not posted: %s", parent.namespace, parent.name, error)


def _over(document: Json, live: Mapping[str, Any]) -> Json:
    """The document bound to the version that was read, so that a namesake is never written to."""
    bound = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
    return {**document, "metadata": document["metadata"] | bound}


def _is_same_job(live: Mapping[str, Any], mine: Json, parent: ObservedObject) -> bool:
    hashes = [d["metadata"].get("annotations", {}).get(ANNOTATION_INPUT_HASH) for d in (live, mine)]
    return is_owned_by(live, parent.uid) and hashes[0] == hashes[1]
