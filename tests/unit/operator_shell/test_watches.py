"""kopf watches and does nothing else; the operator's process stays light."""

import subprocess
import sys
from typing import Any

import kopf
import pytest

from lora_operator.handlers import (
    FINALIZER,
    JitteredBackoffs,
    assert_watches_only,
    kopf_settings,
    watches,
)
from lora_operator.reconcile import ObjectKey


def test_kopf_writes_nothing_and_needs_no_right_to_list_crds() -> None:
    settings = kopf_settings()
    assert settings.posting.enabled is False
    assert settings.peering.standalone is True
    assert settings.scanning.disabled is True
    assert settings.persistence.finalizer == FINALIZER
    selectors: Any = settings.watching.label_selectors
    assert {s.any_name or s.plural: v for s, v in selectors.items()} == dict.fromkeys(
        ("jobs", "pods", "deployments", "services"), "lora-operator.dev/name"
    )


def test_the_watches_never_give_up_and_wait_at_most_30_s() -> None:
    backoffs = kopf_settings().networking.error_backoffs
    assert isinstance(backoffs, JitteredBackoffs)
    for _ in range(2):  # kopf iterates it once a request
        waits = [wait for wait, _ in zip(backoffs, range(200), strict=False)]
        assert len(waits) == 200
        assert all(0 < wait <= 30 for wait in waits)
        assert waits[0] <= 1


def test_the_registry_has_one_watch_a_kind_and_nothing_that_writes() -> None:
    registry: Any = watches(lambda key, can_wait=False: None)
    watched = {h.selector.any_name or h.selector.plural for h in registry._watching._handlers}
    assert watched == {"loradeployments", "jobs", "pods", "deployments", "services"}
    assert_watches_only(registry)


@pytest.mark.parametrize("decorator", [kopf.on.create, kopf.on.update, kopf.timer, kopf.index])
def test_a_handler_that_writes_is_refused_at_start(decorator: Any) -> None:
    registry = watches(lambda key, can_wait=False: None)
    options = {"interval": 5} if decorator is kopf.timer else {}
    decorator("lora-operator.dev", "v1alpha1", "loradeployments", registry=registry, **options)(
        lambda **_: None
    )
    with pytest.raises(RuntimeError, match="write"):
        assert_watches_only(registry)


async def test_an_event_of_a_child_names_its_object_and_one_of_a_stranger_nothing() -> None:
    keys: list[ObjectKey] = []
    seen: list[str] = []
    registry = watches(lambda key, can_wait=False: keys.append(key), saw=seen.append)
    handlers = {str(h.id): h.fn for h in registry._watching._handlers}
    jobs = kopf.Resource("batch", "v1", "jobs")
    owned = {"lora-operator.dev/name": "demo"}
    await call(handlers["jobs"], namespace="team", name="demo-merge-1", labels=owned, resource=jobs)
    await call(handlers["jobs"], namespace="team", name="other", labels={}, resource=jobs)
    (own,) = [fn for id_, fn in handlers.items() if "lora_deployment_changed" in id_]
    await call(own, namespace="team", name="demo", labels={}, meta={"resourceVersion": "1"})
    assert keys == [ObjectKey("team", "demo")] * 2
    assert seen == ["jobs", "jobs", "loradeployments"]


SERVES = {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 3}]}
WORKS = {"conditions": [{"type": "Ready", "status": "Unknown", "observedGeneration": 3}]}


@pytest.mark.parametrize(
    ("told", "status", "can_wait"),
    [
        (None, SERVES, True),  # the listing at the start
        ("MODIFIED", SERVES, False),
        (None, WORKS, False),
        (None, {}, False),
        (None, {"conditions": [SERVES["conditions"][0] | {"observedGeneration": 2}]}, False),
    ],
)
async def test_at_the_start_objects_that_serve_can_wait_for_those_that_work(
    told: str | None, status: dict[str, Any], can_wait: bool
) -> None:
    added: list[bool] = []
    registry = watches(lambda key, can_wait=False: added.append(can_wait))
    (own,) = [h.fn for h in registry._watching._handlers if "lora_deployment" in str(h.id)]
    meta = {"resourceVersion": "1", "generation": 3}
    await call(own, namespace="team", name="demo", meta=meta, status=status, type=told)
    assert added == [can_wait]


async def call(handler: Any, **arguments: Any) -> None:
    await handler(**{"type": "MODIFIED", "status": {}} | arguments)


def test_the_operator_loads_neither_torch_nor_an_s3_client() -> None:
    program = "import sys, lora_operator.__main__, lora_operator.handlers; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    heavy = {"torch", "transformers", "peft", "gptqmodel", "boto3", "botocore", "numpy"}
    assert not loaded & heavy
    assert "lora_jobs" not in loaded


def test_help_names_every_variable_that_is_read() -> None:
    command = [sys.executable, "-m", "lora_operator"]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("JOBS_IMAGE", "QUANTIZE_IMAGE", "NAMESPACES", "RESYNC_SECONDS"):
        assert f"LORA_OPERATOR_{name}" in told
    without = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert without.returncode == 64
    assert "LORA_OPERATOR_JOBS_IMAGE" in without.stderr
