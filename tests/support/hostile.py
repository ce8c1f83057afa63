"""Every place where a stage program reads a file that others wrote, as a function of bytes.

A target puts the bytes in place of one file of a small, otherwise right world and uses it. It
returns where they were taken, raises `StageError` where they were refused; anything else is a
fault. Hypothesis drives them in the unit tests, atheris behind `make fuzz`.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lora_api.digests import FileDigest, artifact_digest
from lora_api.jobcontract import Stage, StageCall
from lora_jobs.datasets.records import read_records
from lora_jobs.errors import MAX_MESSAGE_CHARACTERS, StageError
from lora_jobs.merging import merge_adapter
from lora_jobs.sources.compatibility import check_adapter, check_base
from lora_jobs.sources.fetching import fetch_source
from lora_jobs.sources.pins import Pin, PinnedFile
from lora_jobs.sources.place import pin_source
from lora_jobs.sources.readable import check_has_records
from lora_jobs.sources.selection import SourceKind
from lora_jobs.sources.stored import StoredSource
from lora_jobs.store.actions import read_action
from lora_jobs.store.artifacts import fetch_artifact, has_artifact, publish_artifact
from lora_jobs.store.directory import DirectoryStore
from mergefiles import UP, Q, lora, matrix, quiet, write_adapter, write_base, write_shards

INDEX = "model.safetensors.index.json"


def outcome(target: Callable[[Path, bytes], None], folder: Path, data: bytes) -> StageError | None:
    """The refusal of these bytes, if they were refused; raises whatever else was raised."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        target(folder, data)
    except StageError as refusal:
        line = str(refusal)
        assert line.isprintable(), ascii(line)
        assert 0 < len(line) <= MAX_MESSAGE_CHARACTERS
        return refusal
    return None


def _merged(folder: Path) -> None:
    try:
        merge_adapter(folder / "base", folder / "adapter", folder / "merged", quiet)
    except StageError:
        assert not list(folder.glob("merged*"))
        raise


def _models(folder: Path) -> None:
    write_base(folder / "base", {f"{Q}.weight": matrix(6, 4), "lm_head.weight": matrix(8, 4)})
    (folder / "base/chat_template.jinja").write_text("{{ messages }}")
    write_adapter(folder / "adapter", lora(Q, 6, 4))
    (folder / "adapter/tokenizer.json").write_text('{"model": {"vocab": ["a", "b"]}}')
    (folder / "adapter/tokenizer_config.json").write_text("{}")


def _replacing(name: str) -> Callable[[Path, bytes], None]:
    def target(folder: Path, data: bytes) -> None:
        _models(folder)
        (folder / name).write_bytes(data)
        _merged(folder)

    return target


def _index(folder: Path, data: bytes) -> None:
    write_shards(folder / "base", {f"{Q}.weight": matrix(6, 4)}, {f"{UP}.weight": matrix(3, 2)})
    write_adapter(folder / "adapter", lora(Q, 6, 4))
    (folder / "base" / INDEX).write_bytes(data)
    _merged(folder)


def _source(folder: Path) -> StoredSource:
    return StoredSource(f"s3://bucket/{folder.name}", DirectoryStore(folder), None, "")


def _resolved(name: str) -> Callable[[Path, bytes], None]:
    """What `resolve` does with a base and an adapter."""

    def target(folder: Path, data: bytes) -> None:
        _models(folder)
        (folder / name).write_bytes(data)
        base, adapter = _source(folder / "base"), _source(folder / "adapter")
        base_pin, adapter_pin = (
            pin_source(SourceKind.BASE, base), pin_source(SourceKind.ADAPTER, adapter),
        )  # fmt: skip
        check_base(base)
        check_adapter(adapter, adapter_pin, base, base_pin)
        fetch_source(base, base_pin, folder / "fetched")

    return target


def _data_set(suffix: str) -> Callable[[Path, bytes], None]:
    def target(folder: Path, data: bytes) -> None:
        file = folder / "set" / f"rows{suffix}"
        file.parent.mkdir()
        file.write_bytes(data)
        pin = Pin.of("s3://bucket/set", "", [PinnedFile(path=file.name, size=len(data))])
        check_has_records(_source(file.parent), pin)
        for record in read_records(file).records:
            record.plain.encode()

    return target


def _published(folder: Path) -> tuple[DirectoryStore, str]:
    (folder / "made").mkdir()
    (folder / "made/config.json").write_bytes(b"{}")
    store = DirectoryStore(folder / "store")
    return store, publish_artifact(store, folder / "made")


def _manifest(folder: Path, data: bytes) -> None:
    """Also under the digest that it claims: whoever writes a manifest can compute it."""
    store, ours = _published(folder)
    for digest in {ours, _claimed(data)}:
        place = f"artifacts/{digest.replace(':', '-')}"
        store.write(f"{place}/manifest.json", data)
        store.write(f"{place}/config.json", b"{}")
        has_artifact(store, digest)
        try:
            fetch_artifact(store, digest, folder / "fetched")
        finally:
            assert not list((folder / "..").glob("outside*"))


def _claimed(data: bytes) -> str:
    try:
        files = json.loads(data)["files"]
        return artifact_digest(FileDigest(f["path"], f["size"], f["sha256"]) for f in files)
    except (ValueError, KeyError, TypeError, RecursionError):
        return "sha256:" + "0" * 64


def _action(folder: Path, data: bytes) -> None:
    store = DirectoryStore(folder / "store")
    call = StageCall(stage=Stage.MERGE)
    store.write(f"actions/merge/{call.input_hash}.json", data)
    read_action(store, call)


TARGETS: dict[str, Callable[[Path, bytes], None]] = {
    "adapter config": _replacing("adapter/adapter_config.json"),
    "adapter weights": _replacing("adapter/adapter_model.safetensors"),
    "base config": _replacing("base/config.json"),
    "base weights": _replacing("base/model.safetensors"),
    "base index": _index,
    "tokenizer": _replacing("adapter/tokenizer.json"),
    "tokenizer config": _replacing("adapter/tokenizer_config.json"),
    "resolved adapter config": _resolved("adapter/adapter_config.json"),
    "resolved adapter weights": _resolved("adapter/adapter_model.safetensors"),
    "resolved base config": _resolved("base/config.json"),
    "resolved base index": _resolved(f"base/{INDEX}"),
    "JSON lines": _data_set(".jsonl"),
    "JSON list": _data_set(".json"),
    "plain text": _data_set(".txt"),
    "Parquet": _data_set(".parquet"),
    "manifest": _manifest,
    "action entry": _action,
}


def seeds(name: str, folder: Path) -> Sequence[bytes]:
    """Right contents of a target, from which wrong ones are made."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _models(folder)
    adapter = folder / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    rich = config | {
        "rank_pattern": {"q_.*": 2}, "alpha_pattern": {"q_proj": 3.5}, "use_rslora": True,
        "modules_to_save": ["lm_head"], "trainable_token_indices": {"embed_tokens": [1]},
        "target_parameters": ["experts.down_proj"], "init_lora_weights": "eva", "bias": "none",
    }  # fmt: skip
    by_name = {
        "adapter config": [config, rich],
        "base config": [{"vocab_size": 8, "model_type": "gpt2", "tie_word_embeddings": True,
                         "text_config": {"vocab_size": 8}}],
        "base index": [{"metadata": {"total_size": 1},
                        "weight_map": {f"{Q}.weight": "model-00001-of-00002.safetensors",
                                       f"{UP}.weight": "model-00002-of-00002.safetensors"}}],
        "resolved base index": [{"weight_map": {f"{Q}.weight": "model.safetensors"}}],
        "tokenizer": [{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}],
        "tokenizer config": [{"chat_template": "x", "auto_map": {}}],
        "JSON lines": [{"text": "a"}, {"messages": [{"role": "user", "content": "a"}]},
                       {"prompt": "a", "completion": "b"}],
        "JSON list": [[{"text": "a"}, {"text": "b"}], [{"prompt": [], "completion": []}]],
        "action entry": [{"call": {"stage": "merge"}, "result": {"stage": "merge"}}],
    }  # fmt: skip
    by_name["resolved adapter config"] = by_name["adapter config"]
    by_name["resolved base config"] = by_name["base config"]
    if name in by_name:
        return [json.dumps(document).encode() for document in by_name[name]]
    if name.endswith("adapter weights"):
        return [(adapter / "adapter_model.safetensors").read_bytes()]
    if name == "base weights":
        return [(folder / "base/model.safetensors").read_bytes()]
    if name == "Parquet":
        return [_parquet(folder / "rows.parquet")]
    if name == "manifest":
        store, digest = _published(folder)
        content = store.read(f"artifacts/{digest.replace(':', '-')}/manifest.json")
        assert content is not None
        return [content.data]
    return [b"some text\fand more"]


def _parquet(file: Path) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"text": ["a", "b"], "prompt": ["c", None]}), file)
    return file.read_bytes()
