"""Base and adapter on a PersistentVolumeClaim, read by real pods of a restricted namespace."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_model
from demo_object import demo_object
from lora import Lora, until
from testbed import E2E_BUCKET, Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
CLAIM = "models"
STORE = f"s3://{E2E_BUCKET}/volume-store"
Json = dict[str, Any]


@pytest.fixture
def volume(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this machine as the one PersistentVolume that the claim can bind."""
    if os.environ.get("CLUSTER") == "current":
        pytest.skip("a volume of this machine's files needs the local cluster")
    folder = Path("/var/tmp") / f"lora-operator-volume-{os.getpid()}"
    model = tiny_model.ensure()
    shutil.copytree(model.base, folder / "base")
    shutil.copytree(model.adapter, folder / "adapter")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    name = folder.name
    testbed.kubectl.apply({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": name,
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    })  # fmt: skip
    yield folder
    testbed.kubectl("delete", "persistentvolume", name, "--wait=false")
    shutil.rmtree(folder)


@pytest.fixture
def lora(testbed: Testbed, namespaces: Callable[[str], str], volume: Path) -> Lora:
    lora = Lora(testbed.kubectl.within(namespaces("volumes")), "on-a-volume")
    lora.kubectl.apply({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": volume.name,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })  # fmt: skip
    return lora


def test_a_model_on_a_volume_is_pinned_and_merged_and_no_link_leads_out_of_it(
    testbed: Testbed, lora: Lora, volume: Path
) -> None:
    testbed.empty(STORE)
    config = volume / "base" / "config.json"
    kept = config.read_bytes()
    config.unlink()
    config.symlink_to("/etc/hostname")
    document = demo_object(testbed, lora.name, STORE)
    document["spec"]["baseModel"] = {"uri": f"pvc://{CLAIM}/base"}
    document["spec"]["adapters"] = [{"uri": f"pvc://{CLAIM}/adapter"}]
    lora.kubectl.apply(document)
    refused = lora.wait("Ready", "Unknown", reason="AccessDenied", seconds=180)
    assert "leads out of the claim" in refused["message"]
    config.unlink()
    config.write_bytes(kept)
    lora.wait("Merged", "True", seconds=240)
    pins = {p["source"]: p for p in lora.status["pins"]}
    assert pins["base"]["uri"] == f"pvc://{CLAIM}/base"
    [merge] = lora.jobs("merge")
    [mount] = [
        m for m in merge["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if "/claims/" in m["mountPath"]
    ]  # fmt: skip
    assert mount["readOnly"]
    lora.kubectl("delete", "lora", lora.name, "--wait=true")
    until("its Jobs are gone", lambda: not lora.jobs(), 120)
