"""kubeconform holds what the chart renders against the API server's own schemas."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import EVERYTHING, NOTHING, render, render_all
from kubectl import Kubectl
from kubeschemas import LOCATION, published, write_schemas
from localcluster import tools
from localcluster.console import wait_until
from lora_api import API_VERSION

pytestmark = pytest.mark.integration
Json = dict[str, Any]
CRD = "CustomResourceDefinition"
REPOSITORY = Path(__file__).parents[2]
SAMPLES = sorted((REPOSITORY / "crds/samples").glob("*.yaml"))


@pytest.fixture(scope="module")
def schemas(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema for each kind that the server knows, ours too."""
    ours = f"apis/{API_VERSION}"
    wait_until("the CRD's schema", lambda: ours in published(kubectl), seconds=30)
    folder = tmp_path_factory.mktemp("schemas")
    assert write_schemas(kubectl, folder) > 50
    return folder


def kubeconform(schemas: Path, text: str) -> "subprocess.CompletedProcess[str]":
    program = tools.ensure(tools.KUBECONFORM) / "kubeconform"
    return subprocess.run(
        [str(program), "-strict", "-summary", "-schema-location", f"{schemas}/{LOCATION}", "-"],
        input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, EVERYTHING | {"namespaces": ["team"]}, NOTHING],
    ids=["defaults", "everything", "one namespace", "nothing"],
)
def test_what_the_chart_renders_fits_the_servers_schemas(schemas: Path, values: Json) -> None:
    # The schema of a CRD describes itself by a reference without end; the server checks it.
    documents = [d for d in render_all(values) if d["kind"] != CRD]
    done = kubeconform(schemas, yaml.safe_dump_all(documents))
    assert done.returncode == 0, done.stdout
    assert f"Valid: {len(documents)}" in done.stdout


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_fit_the_schema_that_the_server_publishes(schemas: Path, sample: Path) -> None:
    done = kubeconform(schemas, sample.read_text())
    assert done.returncode == 0, done.stdout


def test_a_field_that_does_not_exist_is_seen(schemas: Path) -> None:
    [deployment] = [d for d in render() if d["kind"] == "Deployment"]
    deployment["spec"]["replicaz"] = 1
    done = kubeconform(schemas, yaml.safe_dump(deployment))
    assert done.returncode == 1
    assert "replicaz" in done.stdout
