"""A small random Llama and rows of calibration, which the tests of each method share."""

from pathlib import Path

import pytest

from lora_jobs.datasets.records import read_records
from lora_jobs.quantizing.rows import rows_for_model
from tinyllama import sentences, write_llama, write_texts


@pytest.fixture(scope="session")
def marker() -> str:
    """A word of the calibration set that is nowhere else."""
    return "Zyzzyva-7731"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers."""
    return write_llama(tmp_path_factory.mktemp("model") / "merged")


@pytest.fixture(scope="module")
def rows(model: Path, marker: str, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """16 of 64 tokens."""
    texts = [f"{marker} {text}" for text in sentences(60)]
    records = read_records(write_texts(tmp_path_factory.mktemp("data") / "c.jsonl", *texts))
    return rows_for_model(model, [records], samples=16, sequence_length=64, seed=0)
