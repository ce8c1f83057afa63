"""What every pod of ours shares: its security, volumes, credentials, scheduling and resources."""

from collections.abc import Iterable, Mapping
from typing import Any

from lora_api import API_VERSION, KIND
from lora_api.connections import Connection, SecretReference
from lora_api.jobcontract import (
    AUTHORITIES_FILE,
    DEFAULT_AUTHORITIES_DIR,
    DEFAULT_CLAIMS_DIR,
    DEFAULT_CREDENTIALS_DIR,
    DEFAULT_SIGNING_DIR,
)
from lora_api.podspec import Resources, Scheduling
from lora_api.provenance import Signing
from lora_api.sourcespec import claim_of
from lora_api.spec import Accelerator
from lora_operator.observed import ObservedObject

Json = dict[str, Any]

STAGE_CONTAINER = "stage"
FETCH_CONTAINER = "fetch"
ENGINE_CONTAINER = "engine"
NO_ACCELERATOR = "None"
PRODUCT_LABEL = "nvidia.com/gpu.product"
_USER = 65532
_GROUP_MAY_READ = 0o440


def owner_reference(parent: ObservedObject) -> Json:
    """What makes a child be deleted with its object."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": parent.name,
        "uid": parent.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def pod_security() -> Json:
    """`securityContext` of a restricted pod; volumes get its group, so that it reads Secrets."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Json:
    """`securityContext` of a restricted container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_basics(scheduling: Scheduling, service_account: str) -> Json:
    """The fields of a PodSpec that do not depend on its containers."""
    spec: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
    }
    placed = scheduling.to_json()
    placed.pop("resources", None)
    spec |= {key: value for key, value in placed.items() if value}
    if service_account:
        spec["serviceAccountName"] = service_account
    return spec


def on_product(spec: Json, accelerator: Accelerator) -> Json:
    """The PodSpec bound to nodes with the accelerator that is asked for by name."""
    if accelerator.resource == NO_ACCELERATOR or not accelerator.product:
        return spec
    selector = {**spec.get("nodeSelector", {}), PRODUCT_LABEL: accelerator.product}
    return {**spec, "nodeSelector": selector}


def resources(
    asked: Resources | None, defaults: Mapping[str, str], accelerator: Accelerator, wants_it: bool
) -> Json:
    """`resources` of a main container.

    Args:
        asked: What the user set; it wins.
        defaults: Requests where the user set neither request nor limit.
        accelerator: The accelerator of the object.
        wants_it: Whether this container may hold one. Where not, none is asked for even when the
            user's defaults for all stages do.
    """
    limits, requests = dict((asked and asked.limits) or {}), dict((asked and asked.requests) or {})
    held = accelerator.resource
    if not wants_it:
        limits.pop(held, None)
        requests.pop(held, None)
    elif held != NO_ACCELERATOR:
        limits.setdefault(held, "1")
    for name, quantity in defaults.items():
        if name not in limits:
            requests.setdefault(name, quantity)
    return {key: value for key, value in (("limits", limits), ("requests", requests)) if value}


def env_list(variables: Mapping[str, str]) -> list[Json]:
    """Literal environment variables, in a steady order."""
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]


def scratch(name: str, path: str, memory_bytes: int = 0) -> tuple[Json, Json]:
    """(volume, mount) of an emptyDir; in memory, of that size, when one is given."""
    medium: Json = {"medium": "Memory", "sizeLimit": str(memory_bytes)} if memory_bytes else {}
    return {"name": name, "emptyDir": medium}, {"name": name, "mountPath": path}


def claims(uris: Iterable[str]) -> list[tuple[Json, Json]]:
    """(volume, mount) of each claim that `pvc://` URIs name, to be read only."""
    names = sorted({claim for uri in uris if (claim := claim_of(uri))})
    return [
        (
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": name}},
            {
                "name": f"claim-{number}",
                "mountPath": f"{DEFAULT_CLAIMS_DIR}/{name}",
                "readOnly": True,
            },
        )
        for number, name in enumerate(names)
    ]


def credentials(
    connections: Iterable[Connection], read_only: bool = False
) -> tuple[list[Json], list[Json]]:
    """(volumes, mounts) of the connections' Secrets and CA bundles, one folder a connection.

    All are optional: what is missing is a typed reason of the program, and no pod that hangs.

    Args:
        connections: Those that the container uses.
        read_only: Prefer the read-only credentials, for pods that serve.
    """
    volumes, mounts = [], []

    def add(name: str, source: Json, folder: str) -> None:
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": folder, "readOnly": True})

    for connection in connections:
        if secret := _secret_of(connection, read_only):
            keys = {"secretName": secret.name, "optional": True, "defaultMode": _GROUP_MAY_READ}
            folder = f"{DEFAULT_CREDENTIALS_DIR}/{connection.name}"
            add(f"connection-{connection.name}", {"secret": keys}, folder)
        if bundle := connection.ca_bundle:
            items = [{"key": bundle.key, "path": AUTHORITIES_FILE}]
            kept = {"name": bundle.config_map_name, "optional": True, "items": items}
            folder = f"{DEFAULT_AUTHORITIES_DIR}/{connection.name}"
            add(f"ca-{connection.name}", {"configMap": kept}, folder)
    return volumes, mounts


def signing_key(signing: Signing) -> tuple[Json, Json]:
    """(volume, mount) of the one file that signs; optional, as `credentials` are."""
    secret = {
        "secretName": signing.secret_ref.name,
        "optional": True,
        "defaultMode": _GROUP_MAY_READ,
        "items": [{"key": signing.key, "path": signing.key}],
    }
    mount = {"name": "signing", "mountPath": DEFAULT_SIGNING_DIR, "readOnly": True}
    return {"name": "signing", "secret": secret}, mount


def _secret_of(connection: Connection, read_only: bool) -> SecretReference | None:
    if connection.s3 is None:
        return connection.hugging_face.secret_ref if connection.hugging_face else None
    full, reading = connection.s3.secret_ref, connection.s3.read_secret_ref
    return (reading or full) if read_only else (full or reading)
