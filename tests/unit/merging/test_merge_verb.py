"""`lora-jobs merge` by hand: a summary or JSON, and never another file overwritten."""

import json
from operator import itemgetter
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lora_jobs.cli import app
from lora_jobs.errors import Refused
from lora_jobs.store.hashing import hash_file
from mergefiles import write_adapter, write_base


def merge(folder: Path, *options: str, output: str = "merged") -> Result:
    arguments = ["merge", "--base", f"{folder}/base", "--adapter", f"{folder}/adapter"]
    return CliRunner().invoke(app, [*arguments, "--output", f"{folder}/{output}", *options])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", base_model_name_or_path="org/base")
    return tmp_path


def test_it_says_what_it_did(folder: Path) -> None:
    done = merge(folder)
    assert done.exit_code == 0, done.output
    assert "1 tensors merged, delta is " in done.stdout
    assert "trainedOn: org/base" in done.stdout
    assert (folder / "merged/model.safetensors").is_file()


def test_json_holds_every_file_and_number(folder: Path) -> None:
    report = json.loads(merge(folder, "--json").stdout)
    files = [
        {"path": f.name} | json.loads(json.dumps(hash_file(f)._asdict()))
        for f in (folder / "merged").iterdir()
    ]
    assert sorted(report["files"], key=itemgetter("path")) == sorted(files, key=itemgetter("path"))
    assert report["merged"] == 1
    assert report["delta_to_weights"] > 0


def test_an_empty_output_is_taken(folder: Path) -> None:
    (folder / "merged").mkdir()
    assert merge(folder).exit_code == 0


def test_a_full_output_is_replaced_by_force_only(folder: Path) -> None:
    merge(folder)
    (folder / "merged/old.txt").write_text("old")
    refused = merge(folder)
    assert refused.exit_code == 2
    assert (folder / "merged/old.txt").exists()
    assert merge(folder, "--force").exit_code == 0
    assert {f.name for f in (folder / "merged").iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json",
    }  # fmt: skip
    assert {f.name for f in folder.iterdir()} == {"base", "adapter", "merged"}


def test_force_replaces_nothing_but_a_model(folder: Path) -> None:
    (folder / "thesis").mkdir()
    (folder / "thesis/chapter1").write_text("years of work")
    assert merge(folder, "--force", output="thesis").exit_code == 2
    assert (folder / "thesis/chapter1").read_text() == "years of work"


@pytest.mark.parametrize("output", ["base", "adapter", "."])
def test_what_is_read_is_never_replaced(folder: Path, output: str) -> None:
    assert merge(folder, "--force", output=output).exit_code == 2
    assert (folder / "base/model.safetensors").is_file()


def test_a_refused_merge_leaves_the_old_model(folder: Path) -> None:
    merge(folder)
    before = (folder / "merged/model.safetensors").read_bytes()
    (folder / "adapter/adapter_config.json").write_text('{"peft_type": "IA3"}')
    assert isinstance(merge(folder, "--force").exception, Refused)
    assert (folder / "merged/model.safetensors").read_bytes() == before


def test_several_adapters_are_summed_with_their_weights(folder: Path) -> None:
    write_adapter(folder / "other", base_model_name_or_path="org/other")
    more = ["--adapter", f"{folder}/other"]
    assert merge(folder, *more, "--weight", "0.5", "--weight", "0.5").exit_code == 0
    assert merge(folder, output="alone").exit_code == 0
    halves, whole = (folder / name / "model.safetensors" for name in ("merged", "alone"))
    assert halves.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("weights", "says"), [(["1", "1"], "2 weights for 1"), (["-1"], "-1 is no number")]
)
def test_weights_are_one_for_each_adapter(folder: Path, weights: list[str], says: str) -> None:
    options = [part for weight in weights for part in ("--weight", weight)]
    refused = merge(folder, *options)
    assert refused.exit_code == 2
    assert says in refused.output
    assert not (folder / "merged").exists()
