"""A safetensors file is read as it is meant, or refused in one line: whatever its header says."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.weightfiles import MAX_HEADER_BYTES, tensors_in, tensors_of
from mergefiles import Header, matrix, write_raw, write_safetensors, write_shards

TENSORS = {"a": matrix(2, 3), "b": matrix(4, 1)}


def accepted_by_safetensors(file: Path) -> bool:
    try:
        with safe_open(file, "np"):
            return True
    except (SafetensorError, OSError):
        return False


def test_what_the_library_reads_is_read_alike(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "x.safetensors", TENSORS)
    data = file.read_bytes()
    for tensor in tensors_in(file):
        raw = data[tensor.offset : tensor.offset + tensor.size]
        values = TENSORS[tensor.name]
        assert tensor.shape == values.shape
        assert raw == values.tobytes()


def overlap(header: Header) -> None:
    header["b"]["data_offsets"] = [8, 24]


def hole(header: Header) -> None:
    header["b"]["data_offsets"] = [28, 44]


def beyond_the_end(header: Header) -> None:
    header["b"]["data_offsets"] = [24, 2**62]


def backwards(header: Header) -> None:
    header["b"]["data_offsets"] = [40, 24]


def negative(header: Header) -> None:
    header["a"]["data_offsets"] = [-8, 24]


def fraction(header: Header) -> None:
    header["a"]["data_offsets"] = [0, 24.0]


def larger_shape(header: Header) -> None:
    header["a"]["shape"] = [2, 4]


def huge_shape(header: Header) -> None:
    header["a"]["shape"] = [2**40, 2**40]


def negative_shape(header: Header) -> None:
    header["a"]["shape"] = [-2, -3]


def shape_of_words(header: Header) -> None:
    header["a"]["shape"] = "23"


def other_dtype(header: Header) -> None:
    header["a"]["dtype"] = "BF16"


def dtype_of_lists(header: Header) -> None:
    header["a"]["dtype"] = []


def no_dtype(header: Header) -> None:
    header["a"]["dtype"] = None


def three_offsets(header: Header) -> None:
    header["a"]["data_offsets"] = [0, 24, 24]


def no_offsets(header: Header) -> None:
    del header["a"]["data_offsets"]


def a_number(header: Header) -> None:
    header["a"] = 7


HOSTILE: tuple[Callable[[Header], None], ...] = (
    overlap, hole, beyond_the_end, backwards, negative, fraction, larger_shape, huge_shape,
    negative_shape, shape_of_words, other_dtype, dtype_of_lists, no_dtype, three_offsets,
    no_offsets, a_number,
)  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_hostile_header_is_refused(tmp_path: Path, change: Callable[[Header], None]) -> None:
    file = write_safetensors(tmp_path / "x.safetensors", TENSORS, change=change)
    assert not accepted_by_safetensors(file)
    with pytest.raises(Refused, match=r"x\.safetensors is no complete safetensors file") as caught:
        tensors_in(file)
    assert caught.value.reason is Reason.INVALID_INPUT


RAW: dict[str, bytes] = {
    "an empty file": b"",
    "half a length": b"\x01\x02",
    "a length alone": struct.pack("<Q", 10),
    "an empty header": struct.pack("<Q", 0),
    "a header beyond the file": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"nope",
    "a list": struct.pack("<Q", 2) + b"[]",
    "no UTF-8": struct.pack("<Q", 4) + b'{"\xff"',
    "deep JSON": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW.keys())
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)
    with pytest.raises(Refused, match="no complete safetensors file"):
        tensors_in(file)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Python would keep the last, others the first: two readers, two models."""
    entry = '{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    once = f'{{"a":{entry % (0, 1)},"b":{entry % (1, 2)}}}'
    file = write_raw(tmp_path / "x.safetensors", once.encode(), b"xy")
    assert len(tensors_in(file)) == 2
    write_raw(file, once.replace('"b"', '"a"').encode(), b"xy")
    with pytest.raises(Refused, match="malformed"):
        tensors_in(file)


def test_a_header_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    """The file has holes: reading it would take memory, not disk."""
    file = tmp_path / "x.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        stream.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(Refused, match="header is longer than the file or than any may be"):
        tensors_in(file)


@pytest.mark.parametrize("cut", [4, 40, 150, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    file = write_safetensors(tmp_path / "x.safetensors", TENSORS)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(Refused, match="no complete safetensors file"):
        tensors_in(file)


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "x.safetensors", TENSORS)
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(Refused, match="its header speaks of"):
        tensors_in(file)


numbers = st.integers(-2, 40) | st.floats() | st.booleans() | st.none() | st.text(max_size=2)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "BF16", "F32", "F4", "X"]) | st.none(),
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, min_size=1, max_size=3) | numbers,
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.text(max_size=3), entries | numbers, max_size=3), st.integers(0, 40))
def test_any_header_is_refused_or_describes_the_file(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], size: int
) -> None:
    file = tmp_path_factory.mktemp("any") / "x.safetensors"
    write_raw(file, json.dumps(header).encode(), bytes(size))
    try:
        tensors = tensors_in(file)
    except Refused:
        return
    start = file.stat().st_size - size
    assert sum(tensor.size for tensor in tensors) == size
    assert all(tensor.offset >= start for tensor in tensors)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_safetensors(tmp_path / f"{name}.safetensors", TENSORS)
    with pytest.raises(Refused, match=r"tensor a is in one\.safetensors and in two\.safetensors"):
        tensors_of(tmp_path)


def shards(folder: Path) -> Path:
    return write_shards(folder / "base", {"a": matrix(2, 2)}, {"b": np.ones((3, 2), np.float32)})


def test_a_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    base = shards(tmp_path)
    assert set(tensors_of(base)) == {"a", "b"}
    (base / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Refused, match=r"names model-00002-of-00002\.safetensors, which is not"):
        tensors_of(base)


def test_a_tensor_that_the_index_names_must_be_in_its_file(tmp_path: Path) -> None:
    base = shards(tmp_path)
    write_safetensors(base / "model-00002-of-00002.safetensors", {"c": matrix(2, 2)})
    with pytest.raises(Refused, match=r"says that b is in model-00002-of-00002\.safetensors"):
        tensors_of(base)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    base = shards(tmp_path)
    (base / "model.safetensors.index.json").write_text(text)
    with pytest.raises(Refused, match="is no index"):
        tensors_of(base)


def test_weights_that_are_only_there_as_pickle_are_unsafe(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(Refused, match="holds no safetensors file") as caught:
        tensors_of(tmp_path)
    assert caught.value.reason is Reason.UNSAFE_FILE
