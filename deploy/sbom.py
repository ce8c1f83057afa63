"""What each image holds, as SPDX 2.3: `make sbom` writes one document per lock.

    python deploy/sbom.py FOLDER

Read from the hash-pinned locks that images are built from: name, version, the digests that are
accepted, and the licence where the package is installed here. The base image and what an engine's
own image holds are not in it; the registry's attestation of a pushed image has them.
"""

import os
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import NamedTuple

from license_expression import ExpressionError, LicenseExpression, get_spdx_licensing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from spdx_tools.spdx.model.actor import Actor, ActorType
from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
from spdx_tools.spdx.model.document import CreationInfo, Document
from spdx_tools.spdx.model.package import (
    ExternalPackageRef,
    ExternalPackageRefCategory,
    Package,
)
from spdx_tools.spdx.model.relationship import Relationship, RelationshipType
from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
from spdx_tools.spdx.writer.write_anything import write_file

REPOSITORY = Path(__file__).parents[1]
IMAGES = ("operator", "jobs", "cpu")
"""Targets of the Dockerfile, each with a lock of its name."""
ROOT = "SPDXRef-image"


class Locked(NamedTuple):
    """One line of a lock."""

    name: str
    version: str
    sha256: tuple[str, ...]


def locked(lock: str) -> Iterator[Locked]:
    """All packages of a lock's text."""
    joined = re.sub(r"\\\n\s*", " ", lock)
    for line in joined.splitlines():
        if line and not line.lstrip().startswith("#"):
            words = line.split(" --hash=")
            requirement = Requirement(words[0])
            (pin,) = requirement.specifier
            digests = tuple(w.removeprefix("sha256:").strip() for w in words[1:])
            yield Locked(canonicalize_name(requirement.name), pin.version, digests)


def licence(name: str) -> LicenseExpression | SpdxNoAssertion:
    """The SPDX expression that the installed package declares, if it declares one."""
    try:
        declared = metadata(name)["License-Expression"]
        expression = get_spdx_licensing().parse(declared, validate=True)
        return SpdxNoAssertion() if expression is None else expression
    except (PackageNotFoundError, ExpressionError):
        return SpdxNoAssertion()


def document(image: str, version: str, packages: list[Locked], created: datetime) -> Document:
    """The SPDX document of an image.

    Args:
        image: The Dockerfile's target.
        version: Of this project.
        packages: What its lock names.
        created: When; a document of the same inputs and time is the same.
    """
    name = f"lora-operator-{image}"
    space = f"https://lora-operator.dev/spdx/{name}-{version}"
    creation = CreationInfo(
        "SPDX-2.3", "SPDXRef-DOCUMENT", name, space, [Actor(ActorType.TOOL, "lora-operator")],
        created,
    )  # fmt: skip
    image_itself = Package(ROOT, name, SpdxNoAssertion(), version=version, files_analyzed=False)
    found = Document(creation, [image_itself])
    found.relationships.append(Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, ROOT))
    for package in packages:
        entry = _package(package)
        found.packages.append(entry)
        found.relationships.append(Relationship(ROOT, RelationshipType.DEPENDS_ON, entry.spdx_id))
    return found


def _package(package: Locked) -> Package:
    purl = f"pkg:pypi/{package.name}@{package.version}"
    reference = ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)
    # A package has several files, of which an installation takes one: all digests are told.
    digests = [Checksum(ChecksumAlgorithm.SHA256, d) for d in package.sha256]
    return Package(
        spdx_id=f"SPDXRef-{re.sub('[^A-Za-z0-9.-]', '-', package.name)}",
        name=package.name,
        download_location=SpdxNoAssertion(),
        version=package.version,
        files_analyzed=False,
        checksums=digests,
        license_declared=licence(package.name),
        external_references=[reference],
    )


def write(folder: Path, created: datetime) -> None:
    """One document per image.

    Args:
        folder: Made if it is not there.
        created: What the documents say.

    Raises:
        ValueError: A document is not valid SPDX; says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    for image in IMAGES:
        packages = list(locked((REPOSITORY / f"requirements/{image}.lock").read_text()))
        found = document(image, version, packages, created)
        if wrong := validate_full_spdx_document(found):
            raise ValueError(f"{image}: {wrong[0].validation_message}")
        path = folder / f"lora-operator-{image}.spdx.json"
        write_file(found, str(path), validate=False)
        print(f"{path}: {len(packages)} packages")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())  # a release can be repeated
    write(Path(sys.argv[1]), datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None))
