"""Events with a deterministic name: the same fact about the same object is one Event."""

from lora_api import API_VERSION, KIND
from lora_api.digests import digest_of, short
from lora_api.naming import FIELD_MANAGER
from lora_operator.actions import EmitEvent
from lora_operator.manifests.pods import Json
from lora_operator.observed import ObservedObject

_MAX_MESSAGE = 1024


def event(parent: ObservedObject, action: EmitEvent, time: str) -> Json:
    """The Event as it is created first; `time` is RFC 3339."""
    identity = digest_of([parent.uid, action.type, action.reason, action.message])
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{parent.name}.{short(identity, 16)}", "namespace": parent.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": parent.namespace,
            "name": parent.name,
            "uid": parent.uid,
        },
        "type": action.type,
        "reason": action.reason,
        "message": action.message[:_MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
