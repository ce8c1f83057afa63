"""What a busy cluster holds besides ours."""

import base64
import os
from functools import partial

from crowd import in_turns

from faultlab.adminapi import AdminApi

NAMESPACE = "bystanders"
PODS, SECRETS, SECRET_BYTES = 10_000, 300, 700_000
"""A Secret holds 1 MiB in all; base64 makes a third more of it."""


async def add_bystanders(api: AdminApi) -> str:
    """Create them; returns what was created."""
    await api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    base = f"/api/v1/namespaces/{NAMESPACE}"
    account = {"metadata": {"name": "none"}, "automountServiceAccountToken": False}
    await api.create(f"{base}/serviceaccounts", account)
    await in_turns(partial(_create_secret, api, base, number) for number in range(SECRETS))
    await in_turns(partial(api.create, f"{base}/pods", _pod(number)) for number in range(PODS))
    return f"{PODS} Pods, {SECRETS} Secrets of {SECRET_BYTES / 1e6:.1f} MB"


async def _create_secret(api: AdminApi, base: str, number: int) -> None:
    data = base64.b64encode(os.urandom(SECRET_BYTES)).decode()
    secret = {"metadata": {"name": f"secret-{number}"}, "data": {"x": data}}
    await api.create(f"{base}/secrets", secret)


def _pod(number: int) -> dict[str, object]:
    return {
        "metadata": {"name": f"pod-{number}"},
        "spec": {
            "serviceAccountName": "none",
            "automountServiceAccountToken": False,
            "nodeName": "nowhere",
            "containers": [{"name": "a", "image": "registry.example/a"}],
        },
    }
