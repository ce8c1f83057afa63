"""The merged model has every file that it needs, of the right origin, and none that could run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging import MergeReport, merge_adapter
from mergefiles import quiet, write_adapter, write_base

TEMPLATE = "chat_template.jinja"


def merged(tmp_path: Path) -> MergeReport:
    return merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", quiet)


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)


def read(tmp_path: Path, name: str) -> str:
    return (tmp_path / "merged" / name).read_text()


def tokenizer(*ids: int, **added: int) -> str:
    vocabulary = {f"t{i}": i for i in ids}
    tokens = [{"content": name, "id": i} for name, i in added.items()]
    return json.dumps({"model": {"vocab": vocabulary}, "added_tokens": tokens})


def test_configuration_tokenizer_template_and_licence_travel(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter")
    put(
        base, generation_config__json="{}", chat_template__jinja="x", LICENSE="free", merges__txt=""
    )
    merged(tmp_path)
    assert {f.name for f in (tmp_path / "merged").iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "generation_config.json", TEMPLATE,
        "LICENSE", "merges.txt",
    }  # fmt: skip
    for file in (tmp_path / "merged").iterdir():
        if file.name != "model.safetensors":
            assert file.read_bytes() == (base / file.name).read_bytes()


def test_what_could_run_or_mislead_stays_behind_and_is_named(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter")
    put(base, modeling_evil__py="boom", adapter_config__json="{}")
    put(base, pytorch_model__bin="boom", training_args__pkl="boom")
    (base / "pytorch_model.bin.index.json").write_text("{}")
    (base / "onnx").mkdir()
    (base / ".gitattributes").write_text("")
    report = merged(tmp_path)
    names = {f.name for f in (tmp_path / "merged").iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}
    assert report.notes["leftBehind"] == (
        "adapter_config.json, modeling_evil.py, onnx, pytorch_model.bin, "
        "pytorch_model.bin.index.json and 1 more"
    )


def test_what_an_adapter_has_beside_its_weights_is_taken_or_named(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter")
    assert "adapterLeftBehind" not in merged(tmp_path).notes
    shutil.rmtree(tmp_path / "merged")
    put(adapter, README__md="x", training_args__bin="boom", chat_template__jinja="x")
    put(adapter, optimizer__safetensors="x", special_tokens_map__json="{}", __gitattributes="")
    report = merged(tmp_path)
    assert report.notes["chatTemplate"] == "the adapter's own"
    assert report.notes["adapterLeftBehind"] == (
        "README.md, optimizer.safetensors, special_tokens_map.json, training_args.bin"
    )


def test_the_adapters_tokenizer_wins_as_one_set(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    put(base, tokenizer_config__json="{}", special_tokens_map__json="{}", added_tokens__json="{}")
    put(adapter, tokenizer__json=tokenizer(0, 7), tokenizer_config__json='{"own": 1}')
    report = merged(tmp_path)
    assert read(tmp_path, "tokenizer.json") == tokenizer(0, 7)
    assert json.loads(read(tmp_path, "tokenizer_config.json")) == {"own": 1}
    assert not (tmp_path / "merged/special_tokens_map.json").exists()
    assert report.notes["tokenizer"] == "the adapter's own"


@pytest.mark.parametrize("own", [tokenizer(0, 8), tokenizer(0, end=8)], ids=["token", "added"])
def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path, own: str) -> None:
    write_base(tmp_path / "base")
    put(write_adapter(tmp_path / "adapter"), tokenizer__json=own)
    with pytest.raises(Refused, match="token id 8, but the base has 8 embeddings") as caught:
        merged(tmp_path)
    assert caught.value.reason is Reason.ADAPTER_MISMATCH


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": [{}]}', '{"model": 3}'])
def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    write_base(tmp_path / "base")
    put(write_adapter(tmp_path / "adapter"), tokenizer__json=text)
    with pytest.raises(Refused, match=r"tokenizer\.json"):
        merged(tmp_path)


def test_a_unigram_vocabulary_counts_its_pieces(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    pieces = {"model": {"vocab": [[f"t{i}", 0.0] for i in range(9)]}}
    put(write_adapter(tmp_path / "adapter"), tokenizer__json=json.dumps(pieces))
    with pytest.raises(Refused, match="token id 8"):
        merged(tmp_path)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, "base's"),
        ({"chat_template.jinja": "adapter's"}, "adapter's"),
        ({"tokenizer.json": tokenizer(0)}, "base's"),
        ({"tokenizer.json": tokenizer(0), TEMPLATE: "adapter's"}, "adapter's"),
        (
            {"tokenizer.json": tokenizer(0), "tokenizer_config.json": '{"chat_template": "x"}'},
            None,
        ),
    ],
    ids=["none", "its own alone", "a tokenizer without", "a tokenizer with", "an older form"],
)
def test_the_chat_template_is_the_one_that_was_trained_with(
    tmp_path: Path, own: dict[str, str], expected: str | None
) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    (base / TEMPLATE).write_text("base's")
    for name, text in own.items():
        (adapter / name).write_text(text)
    merged(tmp_path)
    found = tmp_path / "merged" / TEMPLATE
    assert (found.read_text() if found.is_file() else None) == expected


@pytest.mark.parametrize(
    ("config", "settings", "is_refused"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, {}, True),
        ({}, {"auto_map": {"AutoTokenizer": "x.Y"}}, True),
        ({}, {}, False),
    ],
    ids=["the model's", "the tokenizer's", "none"],
)
def test_code_of_the_models_own_is_refused(
    tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], is_refused: bool
) -> None:
    base = write_base(tmp_path / "base", **config)
    write_adapter(tmp_path / "adapter")
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    if not is_refused:
        assert merged(tmp_path).merged == 1
        return
    with pytest.raises(Refused, match="auto_map") as caught:
        merged(tmp_path)
    assert caught.value.reason is Reason.UNSAFE_FILE


def test_a_base_without_config_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (write_base(tmp_path / "base") / "config.json").unlink()
    write_adapter(tmp_path / "adapter")
    with pytest.raises(Refused, match=r"config\.json is missing or no JSON"):
        merged(tmp_path)
    assert not list(tmp_path.glob("merged*"))
