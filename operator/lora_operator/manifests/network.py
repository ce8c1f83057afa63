"""The NetworkPolicies of an object's pods: what is not named here is denied.

    <name>-stages    nothing comes in; out: DNS, stores and sources, the object's serving pods
    <name>-serving   in: the engine's port; out: DNS and the store, for the init container `fetch`

Traps: a policy holds for a pod, so the engine may reach what `fetch` may; it knows addresses and
ports, never names; and behind a Service it is the port of the pod that counts.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from lora_api.connections import Connection
from lora_api.naming import LABEL_NAME, LABEL_RELEASE, LABEL_STAGE, labels
from lora_api.runtimes import SERVING_PORT
from lora_api.spec import Spec
from lora_operator.manifests.pods import Json, owner_reference
from lora_operator.manifests.serving import with_spec_hash
from lora_operator.observed import ObservedObject
from lora_operator.podnetwork import PodNetwork

_HTTPS = 443
_PORTS = {"http": 80, "https": _HTTPS}


def stage_policy(parent: ObservedObject, spec: Spec, network: PodNetwork) -> Json:
    """What the pods of all stage Jobs of an object may reach; nobody reaches them."""
    asked = {"podSelector": _pods_with(parent.name, LABEL_RELEASE)}
    egress = [
        _dns(network),
        _to_places(spec.connections or [], network, and_hub=True),
        {"to": [asked], "ports": [_tcp(SERVING_PORT)]},
    ]
    return _policy(parent, "stages", LABEL_STAGE, {"ingress": [], "egress": egress})


def serving_policy(parent: ObservedObject, spec: Spec, network: PodNetwork) -> Json:
    """Who may ask the serving pods of an object, and what these may reach."""
    store = [c for c in spec.connections or [] if c.name == spec.artifact.connection]
    clients: Json = {"ports": [_tcp(SERVING_PORT)]}
    if network.clients:
        verify = {"podSelector": _pods_with(parent.name, LABEL_STAGE)}
        clients["from"] = [*network.clients, verify]
    egress = [_dns(network), _to_places(store, network, and_hub=not store)]
    return _policy(parent, "serving", LABEL_RELEASE, {"ingress": [clients], "egress": egress})


def _policy(parent: ObservedObject, what: str, label: str, rules: Json) -> Json:
    document: Json = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": f"{parent.name}-{what}",
            "namespace": parent.namespace,
            "labels": labels(parent.name),
            "ownerReferences": [owner_reference(parent)],
        },
        "spec": {
            "podSelector": _pods_with(parent.name, label),
            "policyTypes": ["Ingress", "Egress"],
            **rules,
        },
    }
    return with_spec_hash(document)


def _pods_with(name: str, label: str) -> Json:
    """The object's pods that carry a label, whatever its value."""
    return {
        "matchLabels": {LABEL_NAME: name},
        "matchExpressions": [{"key": label, "operator": "Exists"}],
    }


def _dns(network: PodNetwork) -> Json:
    """On any address: a resolver of the node has no label to select."""
    return {
        "ports": [
            {"port": port, "protocol": protocol}
            for port in network.dns_ports
            for protocol in ("UDP", "TCP")
        ]
    }


def _to_places(connections: Iterable[Connection], network: PodNetwork, and_hub: bool) -> Json:
    """The ports of the endpoints; `and_hub`: those of AWS and the public hub too."""
    ports = {_port_of(connection) for connection in connections} | {*network.egress_ports}
    rule: Json = {
        "ports": [_tcp(port) for port in sorted(ports | ({_HTTPS} if and_hub else set()))]
    }
    if network.egress_cidrs:
        rule["to"] = [{"ipBlock": {"cidr": cidr}} for cidr in network.egress_cidrs]
    return rule


def _port_of(connection: Connection) -> int:
    kind = connection.s3 or connection.hugging_face
    if kind is None or not kind.endpoint:
        return _HTTPS
    parts = urlsplit(kind.endpoint)
    return parts.port or _PORTS[parts.scheme]


def _tcp(port: int) -> Json:
    return {"port": port, "protocol": "TCP"}
