"""Kueue's own schema of a Workload, from its published Go module; no controller runs here."""

import json
from pathlib import Path
from typing import Any

import yaml

from localcluster.shell import run
from localcluster.tools import find_go, lock

MODULE = "sigs.k8s.io/kueue@v0.15.0"
SUM = "h1:9Khzc2ne6/eWuZx5o+R4KlVBzh3kZkTIMzpPC2e8Spg="
API_VERSION = "kueue.x-k8s.io/v1beta2"


def workload_definition() -> dict[str, Any]:
    """The CustomResourceDefinition, without the conversion webhook, which is not here."""
    with lock("kueue"):
        found = json.loads(run(find_go(), "mod", "download", "-json", MODULE))
    assert found["Sum"] == SUM, "this is another module than was looked at"
    folder = Path(found["Dir"], "config/components/crd/bases")
    text = (folder / "kueue.x-k8s.io_workloads.yaml").read_text()
    definition: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)  # large
    definition["spec"].pop("conversion", None)
    return definition


def workload_of(job: dict[str, Any], queue: str) -> dict[str, Any]:
    """What Kueue makes for a Job that names a queue."""
    metadata = job["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {
            "name": f"job-{metadata['name']}"[:63],
            "labels": {"kueue.x-k8s.io/job-uid": metadata["uid"]},
        },
        "spec": {
            "queueName": queue,
            "podSets": [{"name": "main", "count": 1, "template": job["spec"]["template"]}],
        },
    }


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    """A condition as Kueue sets it."""
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-22T10:00:00Z",
    }  # fmt: skip
