"""What Kueue says of a Job that it holds back: one line from the Workload that it made for it.

Kueue suspends a Job that names a queue until it is admitted, and again when it is evicted. Reading
Workloads is a right of its own, so it is asked for in the chart; without it a Job that is held back
is told all the same, without the reason.
"""

from typing import Any

from lora_operator.cluster import Cluster, Kind, NotFound

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"


def workloads(api_version: str) -> Kind:
    """Kueue's Workload, in the version that the cluster serves."""
    return Kind(api_version, "Workload", "workloads")


async def reason_of_queueing(cluster: Cluster, kind: Kind, namespace: str, job_uid: str) -> str:
    """Why the Job is not admitted, in Kueue's words; empty when it says nothing.

    Raises:
        Denied: The right to list Workloads is missing.
    """
    try:
        found = await cluster.list_items(kind, namespace, f"{_JOB_UID_LABEL}={job_uid}")
    except NotFound:  # Kueue, or this version of it, is not installed
        return ""
    conditions = {c["type"]: c for w in found for c in w.get("status", {}).get("conditions") or ()}
    words = (_evicted(conditions), _not_admitted(conditions))
    return "; ".join(word for word in words if word)


def _evicted(conditions: dict[str, Any]) -> str:
    said = conditions.get("Evicted")
    if said is None or said["status"] != "True":
        return ""
    return f"evicted ({said['reason']}): {said.get('message', '')}".rstrip(": ")


def _not_admitted(conditions: dict[str, Any]) -> str:
    said = conditions.get("QuotaReserved")
    if said is None or said["status"] == "True":
        return ""
    return str(said.get("message") or said["reason"])
