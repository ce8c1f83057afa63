"""Whatever a file holds, it is taken or refused in one printable line; it never ends in a crash."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hostile import TARGETS, outcome, seeds
from mergefiles import write_adapter, write_base

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=4)
    | st.sampled_from([-1, 2**31, 2**63, 2**64, 10**400, 1e308, "", "a/b", "../outside", "\ud800",
                       "\0", "\x1b[2J", "(a+)+b", "[", "BF16", "q_proj", "none"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner,
                                                                max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value of a document, itself included."""
    inner = (
        document.items() if isinstance(document, dict)
        else enumerate(document) if isinstance(document, list) else ()
    )  # fmt: skip
    return [path, *(p for key, value in inner for p in places(value, (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at one place."""
    if not path:
        return value
    changed = dict(document) if isinstance(document, dict) else list(document)
    changed[path[0]] = put(document[path[0]], path[1:], value)
    return changed


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A right file with values changed if it is JSON (or its header is), else bytes."""
    data = draw(st.sampled_from(originals))
    start = 8 if data[8:9] == b"{" else 0
    end = start + int.from_bytes(data[:8], "little") if start else len(data)
    how = draw(st.sampled_from(["values", "bytes", "cut", "junk"]))
    try:
        document = json.loads(data[start:end])
    except ValueError:
        document = None
    if how == "values" and document is not None:
        for _ in range(draw(st.integers(1, 3))):
            document = put(document, draw(st.sampled_from(places(document))), draw(junk))
        text = json.dumps(document, ensure_ascii=draw(st.booleans()))
        header = text.encode(errors="surrogatepass")
        return (len(header).to_bytes(8, "little") if start else b"") + header + data[end:]
    if how == "junk":
        return draw(st.binary(max_size=64))
    place = draw(st.integers(0, len(data) - 1))
    if how == "cut":
        return data[:place]
    return data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_that_is_right_is_taken(name: str, tmp_path: Path) -> None:
    """So that the mutations begin where the code goes deep."""
    first = seeds(name, tmp_path / "seeds")[0]
    assert outcome(TARGETS[name], tmp_path / "world", first) is None


@pytest.mark.parametrize("name", TARGETS)
def test_any_file_is_taken_or_refused_in_one_line(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    originals = list(seeds(name, folder / "seeds"))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(originals))
    @example(b"")
    def check(data: bytes) -> None:
        outcome(TARGETS[name], folder / "world", data)

    check()


def deep(seed: bytes) -> bytes:
    return b'{"a":' + b"[" * 200_000


def deep_and_closed(seed: bytes) -> bytes:
    return b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def half_a_pair(seed: bytes) -> bytes:
    return seed.replace(b'"', b'"\\ud800', 1)


def half_a_pair_in_bytes(seed: bytes) -> bytes:
    return seed.replace(b'"', b'"\xed\xa0\x80', 1)


def endless_number(seed: bytes) -> bytes:
    return b'{"r":' + b"9" * 100_000 + b"}"


JSON_TARGETS = tuple(
    n for n in TARGETS if "weights" not in n and n not in ("plain text", "Parquet")
)


@pytest.mark.parametrize("name", JSON_TARGETS)
@pytest.mark.parametrize(
    "spoil", [deep, deep_and_closed, half_a_pair, half_a_pair_in_bytes, endless_number]
)
def test_json_that_breaks_parsers_is_refused_or_of_no_account(
    name: str, spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    data = spoil(seeds(name, tmp_path / "seeds")[0])
    refusal = outcome(TARGETS[name], tmp_path / "world", data)
    # An action entry that cannot be read is one that is not there.
    assert refusal is not None or name == "action entry"


LIMITED = """
import resource, sys
from lora_jobs.cli import main
from lora_jobs import merging
mib = 2**20
here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (here + 700 * mib, here + 700 * mib))
sys.argv = ["lora-jobs", "merge", "--base", "base", "--adapter", "adapter", "--output", "merged"]
main()
"""


def header_of_100_mb(folder: Path) -> None:
    with (folder / "base/model.safetensors").open("wb") as file:
        file.write((100 * 10**6).to_bytes(8, "little") + b'{"a":[' + b"[]," * (33 * 10**6))
        file.truncate(8 + 100 * 10**6)


def header_of_16_mib_of_lists(folder: Path) -> None:
    """The worst that is still parsed."""
    header = b'{"a":[' + b"[]," * (2**24 // 3 - 10) + b"[]]}"
    file = len(header).to_bytes(8, "little") + header
    (folder / "adapter/adapter_model.safetensors").write_bytes(file)


def shape_of_a_million_nines(folder: Path) -> None:
    entry = {"dtype": "U8", "shape": [9] * 10**6, "data_offsets": [0, 9**9]}
    header = json.dumps({"a": entry}).encode()
    file = len(header).to_bytes(8, "little") + header
    (folder / "base/model.safetensors").write_bytes(file)


def pattern_that_runs_for_years(folder: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"(.|.)+[XYZ]": 2}}
    (folder / "adapter/adapter_config.json").write_text(json.dumps(config))


def index_of_a_gigabyte(folder: Path) -> None:
    """It has holes; reading all of it would take memory."""
    with (folder / "base/model.safetensors.index.json").open("wb") as file:
        file.truncate(2**30)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited by Linux")
@pytest.mark.parametrize(
    "spoil",
    [header_of_100_mb, header_of_16_mib_of_lists, shape_of_a_million_nines,
     pattern_that_runs_for_years, index_of_a_gigabyte],
)  # fmt: skip
def test_what_is_too_much_ends_with_code_2_and_one_line_and_takes_no_memory(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter")
    spoil(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("InvalidInput: ")
    assert not list(tmp_path.glob("merged*"))
