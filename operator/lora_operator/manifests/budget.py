"""The PodDisruptionBudget of a release: a drain takes its pods one at a time."""

from lora_api.naming import labels, release_selector
from lora_operator.actions import ApplyDeployment
from lora_operator.manifests.pods import Json
from lora_operator.manifests.serving import with_spec_hash
from lora_operator.observed import ObservedObject


def release_budget(
    parent: ObservedObject, action: ApplyDeployment, deployment_uid: str
) -> Json | None:
    """The budget of a release with more than one pod; None where it would protect nothing.

    It is owned by the Deployment and goes with it. A lone pod that is left of more is not held by
    it, so it is never taken back.
    """
    if action.replicas < 2:
        return None
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": action.name,
        "uid": deployment_uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return with_spec_hash(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {
                "name": action.name,
                "namespace": parent.namespace,
                "labels": labels(parent.name, release=action.release),
                "ownerReferences": [owner],
            },
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": release_selector(parent.name, action.release)},
                # A pod that crashes anyway must not keep a node from being drained.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    )
