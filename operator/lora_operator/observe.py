"""Live reads into one frozen `Observed`: the object, and all that bears its label.

Nothing is cached and nothing is decided. A name that status says is ours but that no list shows is
read directly: it may be somebody else's object of our name.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lora_api.jobcontract import Progress, parse_outcome
from lora_api.naming import (
    ANNOTATION_BENCHMARK,
    ANNOTATION_CANDIDATE,
    ANNOTATION_DIGEST,
    ANNOTATION_GAVE_UP,
    ANNOTATION_INPUT_HASH,
    ANNOTATION_RECIPE,
    ANNOTATION_SWITCH,
    LABEL_NAME,
    LABEL_RELEASE,
    LABEL_STAGE,
    deployment_name,
)
from lora_api.times import epoch_seconds
from lora_operator.cluster import (
    DEPLOYMENTS,
    JOBS,
    LORA_DEPLOYMENTS,
    PODS,
    SERVICES,
    Cluster,
    Kind,
)
from lora_operator.manifests.pods import STAGE_CONTAINER
from lora_operator.observed import (
    Observed,
    ObservedDeployment,
    ObservedJob,
    ObservedObject,
    ObservedPod,
    ObservedService,
    Switch,
)
from lora_operator.podstate import created_at, is_owned_by, observed_pod
from lora_operator.queues import QUEUE_LABEL, reason_of_queueing, workloads

Json = dict[str, Any]

_PROGRESS_LINES = 20
_FAILURE_LINES = 5
_MACHINE_RESOURCES = ("cpu", "memory", "ephemeral-storage", "hugepages-")


async def observe_object(cluster: Cluster, namespace: str, name: str) -> ObservedObject | None:
    """The LoRADeployment, or None when it is gone."""
    document = await cluster.get(LORA_DEPLOYMENTS, namespace, name)
    if document is None:
        return None
    metadata = document["metadata"]
    return ObservedObject(
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        spec=document.get("spec", {}),
        status=document.get("status", {}),
        annotations=metadata.get("annotations", {}),
        deleting="deletionTimestamp" in metadata,
    )


async def observe_children(
    cluster: Cluster, parent: ObservedObject, kueue_api_version: str = ""
) -> Observed:
    """Jobs, Deployments and their pods, and the Service; logs where they tell something.

    Args:
        cluster: The Kubernetes API.
        parent: The object.
        kueue_api_version: Where Kueue is asked why a Job is held back.
    """
    selector = f"{LABEL_NAME}={parent.name}"
    jobs, deployments, pods, service = await asyncio.gather(
        cluster.list_items(JOBS, parent.namespace, selector),
        cluster.list_items(DEPLOYMENTS, parent.namespace, selector),
        cluster.list_items(PODS, parent.namespace, selector),
        cluster.get(SERVICES, parent.namespace, parent.name),
    )
    jobs += await _unlisted(cluster, JOBS, parent, _named_jobs(parent), jobs)
    named = _named_deployments(parent)
    deployments += await _unlisted(cluster, DEPLOYMENTS, parent, named, deployments)
    pods = sorted(pods, key=created_at)
    seen = [_observed_job(parent, job, pods) for job in jobs]
    if kueue_api_version:
        kind = workloads(kueue_api_version)
        seen = await asyncio.gather(*(_with_queue(cluster, kind, parent, job) for job in seen))
    return Observed(
        parent=parent,
        jobs=tuple(await asyncio.gather(*(_with_log(cluster, parent, job) for job in seen))),
        deployments=tuple(_observed_deployment(parent, d, pods) for d in deployments),
        service=_observed_service(parent, service) if service else None,
    )


async def _unlisted(
    cluster: Cluster, kind: Kind, parent: ObservedObject, names: Iterable[str], listed: list[Json]
) -> list[Json]:
    missing = sorted(set(names) - {item["metadata"]["name"] for item in listed})
    found = await asyncio.gather(*(cluster.get(kind, parent.namespace, n) for n in missing))
    return [document for document in found if document]


def _named_jobs(parent: ObservedObject) -> set[str]:
    """Jobs that status counts on: those of unfinished stages."""
    stages: Iterable[Mapping[str, Any]] = parent.status.get("stages") or ()
    unfinished = ("Pending", "Running", "Waiting")
    return {s["job"] for s in stages if s.get("job") and s.get("state") in unfinished}


def _named_deployments(parent: ObservedObject) -> set[str]:
    """Deployments that status counts on: what serves, and the newest release."""
    serving: Mapping[str, Any] = parent.status.get("serving") or {}
    published: Iterable[Mapping[str, Any]] = parent.status.get("releases") or ()
    releases = {serving.get("release"), *(r.get("id") for r in list(published)[:1])}
    return {deployment_name(parent.name, release) for release in releases if release}


def _observed_job(parent: ObservedObject, document: Json, pods: list[Json]) -> ObservedJob:
    metadata, status = document["metadata"], document.get("status", {})
    annotations, marked = metadata.get("annotations", {}), metadata.get("labels", {})
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    failed = conditions.get("Failed", {})
    own = tuple(observed_pod(p) for p in pods if is_owned_by(p, metadata["uid"]))
    ended = [p for p in own if p.exit_code is not None]
    return ObservedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        stage=marked.get(LABEL_STAGE, ""),
        input_hash=annotations.get(ANNOTATION_INPUT_HASH, ""),
        candidate=annotations.get(ANNOTATION_CANDIDATE, ""),
        ours=is_owned_by(document, parent.uid),
        complete="Complete" in conditions,
        failed=bool(failed),
        failed_reason=failed.get("reason", ""),
        deleting="deletionTimestamp" in metadata,
        created_at=created_at(document),
        started_at=epoch_seconds(status.get("startTime", "")),
        finished_at=epoch_seconds(
            status.get("completionTime") or failed.get("lastTransitionTime", "")
        ),
        accelerators=_accelerators(document),
        pods=own,
        outcome=parse_outcome(ended[-1].termination_message) if ended else None,
        suspended=bool(document["spec"].get("suspend")),
        queue=marked.get(QUEUE_LABEL, ""),
    )


async def _with_queue(
    cluster: Cluster, kind: Kind, parent: ObservedObject, job: ObservedJob
) -> ObservedJob:
    if not (job.suspended and job.queue and job.ours) or job.deleting:
        return job
    said = await reason_of_queueing(cluster, kind, parent.namespace, job.uid)
    return replace(job, queue_says=said)


async def _with_log(cluster: Cluster, parent: ObservedObject, job: ObservedJob) -> ObservedJob:
    """Progress of a stage that runs, last words of one that failed without a document."""
    pod = job.pods[-1] if job.pods else None
    if pod is None or not job.ours or job.deleting or job.complete:
        return job
    if _runs(pod):
        tail = await cluster.read_log_tail(
            parent.namespace, pod.name, STAGE_CONTAINER, _PROGRESS_LINES
        )
        return replace(job, progress=_last_progress(tail))
    if pod.exit_code and job.outcome is None:
        tail = await cluster.read_log_tail(
            parent.namespace, pod.name, STAGE_CONTAINER, _FAILURE_LINES
        )
        return replace(job, log_tail=tail.strip())
    return job


def _runs(pod: ObservedPod) -> bool:
    return pod.container_started_at is not None and pod.exit_code is None and not pod.deleting


def _last_progress(tail: str) -> Progress | None:
    lines = (Progress.from_line(line) for line in reversed(tail.splitlines()))
    return next((progress for progress in lines if progress), None)


def _observed_deployment(
    parent: ObservedObject, document: Json, pods: list[Json]
) -> ObservedDeployment:
    metadata, spec, status = document["metadata"], document["spec"], document.get("status", {})
    annotations = metadata.get("annotations", {})
    release = metadata.get("labels", {}).get(LABEL_RELEASE, "")
    return ObservedDeployment(
        name=metadata["name"],
        uid=metadata["uid"],
        release=release,
        digest=annotations.get(ANNOTATION_DIGEST, ""),
        candidate=annotations.get(ANNOTATION_CANDIDATE, ""),
        benchmark=annotations.get(ANNOTATION_BENCHMARK, ""),
        recipe=_recipe(annotations.get(ANNOTATION_RECIPE, "")),
        replicas=spec.get("replicas", 1),
        ready_replicas=status.get("readyReplicas", 0),
        updated_replicas=status.get("updatedReplicas", 0),
        available=any(
            c["type"] == "Available" and c["status"] == "True"
            for c in status.get("conditions") or ()
        ),
        observed_current=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
        gave_up=annotations.get(ANNOTATION_GAVE_UP, ""),
        ours=is_owned_by(document, parent.uid),
        deleting="deletionTimestamp" in metadata,
        created_at=created_at(document),
        pods=tuple(observed_pod(p) for p in pods if _release_of(p) == release),
    )


def _release_of(document: Json) -> str:
    return str(document["metadata"].get("labels", {}).get(LABEL_RELEASE))


def _observed_service(parent: ObservedObject, document: Json) -> ObservedService:
    metadata, spec = document["metadata"], document["spec"]
    return ObservedService(
        name=metadata["name"],
        release=(spec.get("selector") or {}).get(LABEL_RELEASE, ""),
        ours=is_owned_by(document, parent.uid),
        switch=_switch(metadata.get("annotations", {}).get(ANNOTATION_SWITCH, "")),
    )


def _switch(text: str) -> Switch | None:
    """As `manifests.serving` writes it; None for what is not there or not ours."""
    try:
        document = json.loads(text)
        at = epoch_seconds(str(document["at"]))
        if at is None:
            return None
        return Switch(
            at=at,
            previous=str(document["previous"]),
            pods=int(document["pods"]),
            refused=str(document["refused"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _recipe(text: str) -> dict[str, Any]:
    try:
        recipe = json.loads(text)
    except ValueError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _accelerators(document: Json) -> int:
    """How many devices each pod of a Job holds: its limits that no plain machine has."""
    containers = document["spec"]["template"]["spec"]["containers"]
    limits = [c.get("resources", {}).get("limits", {}) for c in containers]
    counts = [
        quantity
        for limit in limits
        for name, quantity in limit.items()
        if not name.startswith(_MACHINE_RESOURCES) and str(quantity).isdigit()
    ]
    return sum(int(count) for count in counts)
