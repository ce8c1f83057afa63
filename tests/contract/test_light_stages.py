"""What runs before and after the heavy stages needs no torch, and S3 is in one place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs/lora_jobs"
LIGHT = ("stages.resolve", "stages.publish", "stages.report", "stages.merge", "store.s3",
         "sources.hub", "commands.fetch", "commands.run", "localrun", "localview")  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_program_imports_no_torch(module: str) -> None:
    program = (
        f"import sys, lora_jobs.{module}\n"
        "print(*sorted({'torch', 'transformers', 'peft', 'gptqmodel'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_the_command_line_imports_neither_torch_nor_boto3_at_start() -> None:
    program = (
        "import sys, lora_jobs.cli\n"
        "print(*sorted({'torch', 'transformers', 'boto3', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_three_modules_import_the_s3_client() -> None:
    found = {
        file.relative_to(JOBS).as_posix()
        for file in JOBS.rglob("*.py")
        if imported(file) & {"boto3", "botocore", "s3transfer"}
    }
    assert found == {"store/s3.py", "store/transfers.py", "store/downloads.py"}
