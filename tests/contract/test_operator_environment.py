"""The operator's image holds what the `operator` extra names, and no model tool."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, pkgutil
for package in ("lora_operator", "lora_api"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with our wheel and what its image installs."""
    folder = tmp_path_factory.mktemp("plain")
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(wheel, cwd=REPOSITORY, check=True, capture_output=True)
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    install = [*uv, "pip", "install", "--python", str(python)]
    lock = REPOSITORY / "requirements/operator.lock"
    subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
    subprocess.run([*install, "--no-deps", *map(str, folder.glob("*.whl"))], check=True)
    return python


def test_every_module_of_the_operator_imports_with_its_extra_alone(python: Path) -> None:
    subprocess.run([str(python), "-c", IMPORT_ALL], check=True)


@pytest.mark.parametrize("tool", ["torch", "transformers", "gptqmodel", "peft", "boto3"])
def test_no_model_tool_is_there(python: Path, tool: str) -> None:
    done = subprocess.run(
        [str(python), "-c", f"import {tool}"], check=False, capture_output=True, text=True
    )
    assert f"No module named '{tool}'" in done.stderr


def test_the_operator_tells_its_settings(python: Path) -> None:
    done = subprocess.run(
        [str(python), "-m", "lora_operator", "--help"], check=True, capture_output=True, text=True
    )
    assert "usage" in done.stdout.lower()
