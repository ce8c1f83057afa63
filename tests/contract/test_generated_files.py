"""What is generated is current, and what it says is what the models accept."""

from pathlib import Path

import pytest
import yaml

from lora_api.generate import stale_files
from lora_api.spec import parse_spec

REPOSITORY = Path(__file__).parents[2]
SAMPLES = sorted((REPOSITORY / "crds/samples").glob("*.yaml"))


def test_generated_files_are_current() -> None:
    assert stale_files(REPOSITORY) == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_parses(sample: Path) -> None:
    parse_spec(yaml.safe_load(sample.read_text())["spec"])


def test_source_roots_are_not_packages() -> None:
    # `operator/__init__.py` would shadow the standard library's module of that name.
    roots = ("operator", "jobs", "crds")
    assert [r for r in roots if (REPOSITORY / r / "__init__.py").exists()] == []
