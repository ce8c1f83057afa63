"""resolve on local files: what it pins, what it refuses and with which words."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_api import layout
from lora_api.jobcontract import ExitCode, Reason, Stage, StageResult
from lora_api.line import walk
from lora_api.spec import parse_spec
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import Waiting
from lora_jobs.store.actions import write_action
from lora_jobs.store.artifacts import publish_artifact
from lora_jobs.store.directory import DirectoryStore
from resolving import resolve
from tinyfiles import local_spec, write_adapter, write_base, write_records, write_sources


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")


class World:
    """Sources and a store on this machine."""

    def __init__(self, folder: Path) -> None:
        self.sources = write_sources(folder / "sources")
        self.store = DirectoryStore(folder / "store")
        self.work = folder / "work"
        self.spec: dict[str, Any] = local_spec(self.sources, self.store.root)

    def resolve(self) -> StageResult:
        return resolve(self.spec, self.work)

    def refused(self) -> Waiting:
        with pytest.raises(Waiting) as caught:
            self.resolve()
        assert "\n" not in str(caught.value)
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_source_gets_a_pin_that_stands_in_the_store(world: World) -> None:
    result = world.resolve()
    assert set(result.pins) == {"base", "adapter0", "calibration0", "task"}
    scope = world.store.below("team")
    for pin in result.pins.values():
        content = scope.read(layout.pin("demo", pin.key))
        assert content is not None
        assert json.loads(content.data)["digest"] == pin.digest


def test_resolving_again_gives_the_same(world: World) -> None:
    assert world.resolve().pins == world.resolve().pins


def test_another_file_is_another_digest_and_the_rest_stays(world: World) -> None:
    before = world.resolve().pins
    write_records(world.sources / "task.jsonl", "quite", "another")
    after = world.resolve().pins
    changed = {name for name in before if before[name].digest != after[name].digest}
    assert changed == {"task"}


def test_a_file_that_no_stage_reads_changes_nothing(world: World) -> None:
    before = world.resolve().pins
    (world.sources / "base" / "README.md").write_text("words")
    (world.sources / "base" / "pytorch_model.bin").write_bytes(b"pickle beside safetensors")
    (world.sources / "adapter" / "checkpoint-10").mkdir()
    (world.sources / "adapter" / "checkpoint-10" / "adapter_model.safetensors").touch()
    assert world.resolve().pins == before


def test_a_sharded_base_is_taken_by_its_index(world: World) -> None:
    shutil.rmtree(world.sources / "base")
    write_base(world.sources / "base", shards=2)
    (world.sources / "base" / "consolidated.safetensors").write_bytes(b"the same weights again")
    pin = world.resolve().pins["base"]
    content = world.store.below("team").read(layout.pin("demo", pin.key))
    assert content is not None
    names = [f["path"] for f in json.loads(content.data)["files"]]
    assert "consolidated.safetensors" not in names
    assert sum(n.endswith(".safetensors") for n in names) == 2


def missing_adapter(w: World) -> None:
    shutil.rmtree(w.sources / "adapter")


def adapter_of_another_base(w: World) -> None:
    write_adapter(w.sources / "adapter", hidden=16, base_model_name_or_path="org/larger")


def adapter_of_other_layers(w: World) -> None:
    shutil.rmtree(w.sources / "base")
    write_base(w.sources / "base")
    file = w.sources / "adapter" / "adapter_model.safetensors"
    renamed = file.read_bytes().replace(b"layers.0", b"layers.9")
    file.write_bytes(renamed)


def pickle_only_adapter(w: World) -> None:
    folder = w.sources / "adapter"
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def pickle_only_base(w: World) -> None:
    folder = w.sources / "base"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter_of_another_type(w: World) -> None:
    write_adapter(w.sources / "adapter", peft_type="IA3")


def adapter_without_rank(w: World) -> None:
    write_adapter(w.sources / "adapter", r=None)


def cut_adapter(w: World) -> None:
    file = w.sources / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:20])


def quantized_base(w: World) -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}
    (w.sources / "base" / "config.json").write_text(json.dumps(config))


def half_a_base(w: World) -> None:
    shutil.rmtree(w.sources / "base")
    write_base(w.sources / "base", shards=2)
    (w.sources / "base" / "model-00002-of-00002.safetensors").unlink()


def base_is_no_model(w: World) -> None:
    (w.sources / "base" / "config.json").unlink()


def empty_calibration(w: World) -> None:
    (w.sources / "calibration.jsonl").write_text("")


def blank_calibration(w: World) -> None:
    (w.sources / "calibration.jsonl").write_text("\n \n")


def calibration_is_no_json(w: World) -> None:
    (w.sources / "calibration.jsonl").write_text("once upon a time\n")


def calibration_of_an_unknown_kind(w: World) -> None:
    (w.sources / "calibration.jsonl").unlink()
    calibration = w.sources / "calibration.jsonl"
    calibration.mkdir()
    (calibration / "data.csv").write_text("a,b")


def calibration_is_the_task_set_by_another_name(w: World) -> None:
    shutil.copy(w.sources / "task.jsonl", w.sources / "calibration.jsonl")


REFUSALS = [
    (missing_adapter, Reason.SOURCE_NOT_FOUND, "nothing at .*adapter; upload the adapter"),
    (adapter_of_another_base, Reason.ADAPTER_MISMATCH,
     "changes model.layers.0.self_attn.q_proj as 16x16, which in the base is 128x128; "
     "it says it was trained on org/larger; name the base"),
    (adapter_of_other_layers, Reason.ADAPTER_MISMATCH, "which the base does not have"),
    (pickle_only_adapter, Reason.UNSAFE_FILE, "only as pickle .adapter_model.bin.*convert it with"),
    (pickle_only_base, Reason.UNSAFE_FILE, "only as pickle .pytorch_model.bin.*convert it with"),
    (adapter_of_another_type, Reason.UNSUPPORTED_ADAPTER, "IA3 adapter; only LORA"),
    (adapter_without_rank, Reason.UNSUPPORTED_ADAPTER, "no rank r"),
    (cut_adapter, Reason.INVALID_INPUT, "is no complete safetensors file"),
    (quantized_base, Reason.INVALID_INPUT,
     "quantized already .gptq., .* name the 16-bit base .*merge.baseWeights: DequantizedNF4"),
    (half_a_base, Reason.SOURCE_NOT_FOUND, "model-00002-of-00002.safetensors, which is not there"),
    (base_is_no_model, Reason.SOURCE_NOT_FOUND, "holds no config.json"),
    (empty_calibration, Reason.EMPTY_DATASET, "holds no record; upload"),
    (blank_calibration, Reason.EMPTY_DATASET, "holds no record; upload"),
    (calibration_is_no_json, Reason.INVALID_INPUT, "first line is no JSON"),
    (calibration_of_an_unknown_kind, Reason.INVALID_INPUT, "holds no .jsonl, .json, .txt"),
    (calibration_is_the_task_set_by_another_name, Reason.DATASET_OVERLAP, "hold the same file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "reason", "words"), REFUSALS, ids=[r[0].__name__ for r in REFUSALS]
)
def test_bad_input_waits_with_its_reason_and_what_to_do(
    world: World, spoil: Callable[[World], None], reason: Reason, words: str
) -> None:
    spoil(world)
    refusal = world.refused()
    assert refusal.reason is reason
    assert refusal.exit_code is ExitCode.WAITING
    assert re.search(words, str(refusal)), str(refusal)


@pytest.mark.parametrize("spoil", [r[0] for r in REFUSALS], ids=[r[0].__name__ for r in REFUSALS])
def test_the_same_request_succeeds_once_the_files_are_right(
    world: World, spoil: Callable[[World], None]
) -> None:
    spoil(world)
    world.refused()
    shutil.rmtree(world.sources)
    write_sources(world.sources)
    assert world.resolve().pins


def test_an_undefined_connection_is_named(world: World) -> None:
    world.spec["baseModel"] = {"uri": "s3://models/base", "connection": "lost"}
    refusal = world.refused()
    assert refusal.reason is Reason.INVALID_INPUT
    assert 'connection "lost" is not defined' in str(refusal)


def test_local_paths_are_refused_where_there_is_a_cluster(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LOCAL_RUN_ENV)
    refusal = world.refused()
    assert "works in local runs only" in str(refusal)


def finish(world: World, stages: int) -> None:
    """Put the first stages of the line into the store, as if they had run."""
    store = world.store.below("team")
    result = world.resolve()
    pins = {name: pin.digest for name, pin in result.pins.items()}
    known: dict[str, StageResult] = {}
    for _ in range(stages):
        line = walk(
            parse_spec(world.spec), "demo", pins, result.image, lambda c: known.get(c.input_hash)
        )
        call = line.missing
        assert call is not None
        model = world.work / call.stage
        model.mkdir(parents=True)
        (model / "config.json").write_text(call.input_hash)
        digest = publish_artifact(store, model)
        done = StageResult(stage=call.stage, input_hash=call.input_hash, digest=digest)
        known[call.input_hash] = write_action(store, call, done, {})


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_what_is_in_the_store_is_listed_as_done(world: World, stages: int) -> None:
    finish(world, stages)
    done = world.resolve().done
    assert [r.stage for r in done] == [Stage.MERGE, Stage.QUANTIZE][:stages]


def test_a_stage_whose_artifact_was_lost_is_not_done(world: World) -> None:
    finish(world, 2)
    quantized = world.resolve().done[1].digest
    (world.store.root / "team/artifacts" / quantized.replace(":", "-") / "config.json").unlink()
    assert [r.stage for r in world.resolve().done] == [Stage.MERGE]


def test_a_damaged_action_entry_is_no_result(world: World) -> None:
    finish(world, 1)
    for entry in (world.store.root / "team/actions").rglob("*.json"):
        entry.write_text("{")
    assert world.resolve().done == []


def test_groups_that_the_serving_accelerators_would_cut_are_refused_before_any_gpu(
    world: World,
) -> None:
    world.spec["serving"]["args"] = ["--tensor-parallel-size=2"]
    error = world.refused()
    assert error.reason is Reason.INVALID_INPUT
    assert re.search(r"candidate default: .*o_proj has 128 .* use groupSize 64", str(error))
    world.spec["quantization"]["gptq"] = {"groupSize": 64}
    world.resolve()


def test_a_base_that_no_recipe_can_quantize_is_refused_before_any_gpu(world: World) -> None:
    config = world.sources / "base" / "config.json"
    config.write_text(json.dumps({"model_type": "mixtral", "num_local_experts": 8}))
    assert "num_local_experts 8" in str(world.refused())
