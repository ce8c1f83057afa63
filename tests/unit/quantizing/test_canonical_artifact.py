"""Canonical artifacts: bytes that depend on content only."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from lora_jobs.errors import Refused
from lora_jobs.quantizing.canonical import canonicalise, stable_quantization, write_shards
from lora_jobs.weightfiles import TensorEntry, tensors_of, weights_bytes

Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]
arrays = st.sampled_from([np.int32, np.float16, np.int8]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=6))
)
named_arrays = st.dictionaries(st.text("abc.", min_size=1, max_size=6), arrays, min_size=1)


def saved(folder: Path, tensors: Tensors, order: list[str], shards: int = 1) -> Path:
    folder.mkdir(parents=True)
    for i in range(shards):
        part = {name: tensors[name] for name in order[i::shards]}
        if part:
            save_file(part, folder / f"part{i}.safetensors", metadata={"saved": str(order)})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@settings(max_examples=30, deadline=None)
@given(named_arrays, st.integers(1, 3), st.randoms(use_true_random=False), st.integers(1, 400))
def test_order_and_sharding_of_what_was_saved_do_not_show(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: Tensors,
    shards: int,
    chance: random.Random,
    limit: int,
) -> None:
    root = tmp_path_factory.mktemp("shards")
    order = sorted(tensors)
    shuffled = chance.sample(order, len(order))
    written = []
    for i, raw in enumerate(
        (saved(root / "a", tensors, order), saved(root / "b", tensors, shuffled, shards))
    ):
        output = root / f"out{i}"
        output.mkdir()
        write_shards(tensors_of(raw).values(), output, limit)
        written.append(output)
    assert contents(written[0]) == contents(written[1])
    read: Tensors = {}
    for file in written[0].glob("*.safetensors"):
        read |= load_file(file)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].shape, read[name].dtype) == (tensor.shape, tensor.dtype)
        assert read[name].tobytes() == tensor.tobytes()
    assert weights_bytes(written[0]) == sum(t.nbytes for t in tensors.values())


def test_several_shards_have_an_index_of_where_each_tensor_is(tmp_path: Path) -> None:
    tensors = {f"t{i}": np.full((4, 4), i, np.int32) for i in range(3)}
    raw = saved(tmp_path / "raw", tensors, sorted(tensors))
    (tmp_path / "out").mkdir()
    write_shards(tensors_of(raw).values(), tmp_path / "out", 128)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 3 * 64
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "out" / file)
    assert set(index["weight_map"].values()) == {
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    }  # fmt: skip


def test_only_fields_that_inputs_decide_are_kept_of_the_quantization_config() -> None:
    kept = stable_quantization(
        {
            "bits": 4, "group_size": 128, "quant_method": "gptq", "sym": True,
            "dataset": ["private text"], "tokenizer": "x",
            "meta": {"damp_percent": 0.05, "offload_to_disk_path": "/tmp/somewhere"},
        }
    )  # fmt: skip
    assert kept == {
        "bits": 4, "group_size": 128, "quant_method": "gptq", "sym": True,
        "meta": {"damp_percent": 0.05},
    }  # fmt: skip


def test_companions_are_the_models_byte_for_byte_and_the_config_its_own(tmp_path: Path) -> None:
    model, raw, out = tmp_path / "model", tmp_path / "raw", tmp_path / "out"
    saved(model, {"w": np.ones(2, np.int8)}, ["w"])
    saved(raw, {"w.qweight": np.ones(2, np.int32)}, ["w.qweight"])
    companions = {
        "tokenizer.json": b'{"a":1 }\r\n', "chat_template.jinja": b"{{ x }}",
        "generation_config.json": b"{}", "additional_chat_templates/tool.jinja": b"{{ y }}",
    }  # fmt: skip
    for name, content in companions.items():
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(content)
    (model / "config.json").write_text('{"rope_theta": 5e5, "architectures": ["L"]}')
    (model / "manifest.json").write_text("of the store")
    (raw / "config.json").write_text('{"rope_parameters": {}, "transformers_version": "9"}')
    (raw / "tokenizer.json").write_text("rewritten")
    (raw / "quantize_config.json").write_text('{"bits": 4, "meta": {"uri": "x"}}')
    canonicalise(raw, model, out, [("0", "mlp.up_proj", "0.1", "9", "0.05")])
    for name, content in companions.items():
        assert (out / name).read_bytes() == content
    assert json.loads((out / "config.json").read_text()) == {
        "architectures": ["L"], "rope_theta": 5e5, "quantization_config": {"bits": 4, "meta": {}},
    }  # fmt: skip
    assert {f.name for f in out.iterdir() if f.is_file()} == {
        "tokenizer.json", "chat_template.jinja", "generation_config.json", "config.json",
        "quantize_config.json", "quant_log.csv", "model.safetensors",
    }  # fmt: skip
    assert set(tensors_of(out)) == {"w.qweight"}


def test_a_truncated_weight_file_is_refused_by_name(tmp_path: Path) -> None:
    raw = saved(tmp_path / "raw", {"w": np.ones(100, np.int32)}, ["w"])
    whole = (raw / "part0.safetensors").read_bytes()
    for keep in (4, 20, len(whole) - 1):
        (raw / "part0.safetensors").write_bytes(whole[:keep])
        with pytest.raises(Refused, match=r"part0\.safetensors"):
            tensors_of(raw)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    raw = saved(tmp_path / "raw", {"w": np.ones(1, np.int32)}, ["w"])
    save_file({"w": np.zeros(1, np.int32)}, raw / "part9.safetensors")
    with pytest.raises(Refused, match="tensor w"):
        tensors_of(raw)


def test_entries_say_where_bytes_lie(tmp_path: Path) -> None:
    raw = saved(tmp_path / "raw", {"w": np.arange(3, dtype=np.int32)}, ["w"])
    entry: TensorEntry = tensors_of(raw)["w"]
    data = entry.file.read_bytes()[entry.offset : entry.offset + entry.size]
    assert np.frombuffer(data, np.int32).tolist() == [0, 1, 2]
