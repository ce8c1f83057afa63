"""What a release consists of, and that the same commit always gives the same bytes."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from localcluster import tools

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def build(folder: Path) -> str:
    """The checksums of a release that is built into a folder."""
    subprocess.run(
        [str(REPOSITORY / "deploy/release.sh"), sys.executable,
         str(tools.ensure(tools.HELM) / "helm"), str(folder)],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return (folder / "SHA256SUMS").read_text()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    build(folder)
    return folder


def test_building_it_again_gives_the_same_checksums(release: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "again") == (release / "SHA256SUMS").read_text()


def test_every_file_is_summed_and_the_sums_hold(release: Path) -> None:
    summed = {line.split()[1] for line in (release / "SHA256SUMS").read_text().splitlines()}
    assert summed | {"SHA256SUMS"} == {file.name for file in release.iterdir()}
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=release, check=True)


def test_the_wheel_holds_our_packages_and_nothing_of_the_tests(release: Path) -> None:
    [wheel] = release.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert {"lora_api", "lora_operator", "lora_jobs"} <= packages
    assert "tests" not in packages


def test_the_plain_manifest_installs_crd_and_operator(release: Path) -> None:
    text = (release / "lora-operator.yaml").read_text()
    kinds = {document["kind"] for document in yaml.safe_load_all(text) if document}
    assert {"CustomResourceDefinition", "Deployment", "ClusterRole"} <= kinds
    assert "Pod" not in kinds, "what `helm test` starts is not installed"


@pytest.mark.parametrize("image", ["operator", "jobs", "cpu"])
def test_the_sbom_names_what_the_image_is_built_from(release: Path, image: str) -> None:
    found = parse_file(str(release / f"lora-operator-{image}.spdx.json"))
    assert validate_full_spdx_document(found) == []
    lock = (REPOSITORY / f"requirements/{image}.lock").read_text()
    pins = set(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock, re.MULTILINE))
    itself, *packages = found.packages
    assert itself.name == f"lora-operator-{image}"
    assert {(p.name, p.version) for p in packages} == pins
    assert sum(len(p.checksums) for p in packages) == lock.count("--hash=sha256:")


def test_the_workflows_are_valid() -> None:
    assert WORKFLOWS
    done = subprocess.run(
        [str(tools.ensure(tools.ACTIONLINT) / "actionlint"), *map(str, WORKFLOWS)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
