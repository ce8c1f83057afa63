"""The stage against real processes of a fake engine: what is reported, and what is not."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fake_engine import Script
from fake_transport import start_fake
from lora_api import layout
from lora_api.jobcontract import (
    Reason,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StageResult,
    StoreReference,
)
from lora_jobs.benchmarking import protocol
from lora_jobs.benchmarking.measuring import BURST, measure, requests_in_loop
from lora_jobs.benchmarking.results import INACTIVE_ADAPTER
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused
from lora_jobs.outputs import StoreOutputs
from lora_jobs.stages import benchmark as stage
from lora_jobs.store.directory import DirectoryStore
from wordmodel import write_word_model

PARAMETERS = {
    "runtime": "Transformers", "image": "", "accelerator": "None", "inputTokens": 6,
    "outputTokens": 12, "concurrency": [1], "precision": "50%",
}  # fmt: skip


def quick(**changes: Any) -> Script:
    """An engine of a few milliseconds a token."""
    return replace(Script(first_token_s=0.006, gap_s=0.003), **changes)


class Models:
    """The same word model under every name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def source(self, name: str) -> Path:
        return self.folder

    def artifact(self, digest: str) -> Path:
        return self.folder


class World:
    """A store, a model, and how the engine of each condition behaves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.outputs = StoreOutputs(DirectoryStore(folder / "store"))

    def run(self, **scripts: Script) -> StageResult:
        default = {"dynamic": quick(says="d"), "quantized": quick(says="q")}
        scripts = default | scripts
        start = start_fake(lambda place: scripts.get(place.name, quick()))
        faked = partial(protocol.benchmark, measure=partial(measure, start=start))
        self.monkeypatch.setattr(stage, "benchmark", faked)
        result = stage.run(self._context())
        assert self.reported[-1].done == self.reported[-1].total
        return result

    def samples(self, result: StageResult) -> dict[str, Any]:
        found = self.outputs.get_json(layout.samples(result.input_hash))
        assert found is not None
        return found

    def _context(self) -> StageContext:
        parents = {name: f"sha256:{name}" for name in ("base", "adapter0", "merged", "quantized")}
        request = StageRequest(
            call=StageCall(stage=Stage.BENCHMARK, parents=parents, parameters=PARAMETERS),
            run=RunReference(namespace="team", name="demo", uid="u"),
            store=StoreReference(uri="file:///store", scope="team"),
            limits={"maxDuration": "1s"},
        )
        work = self.folder / "work"
        work.mkdir()
        inputs = Models(write_word_model(self.folder / "model"))
        self.reported: list[Any] = []
        return StageContext(request, inputs, self.outputs, work, self.reported.append)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, dict[str, Any]]:
    """One run in which all is well: its result and its samples."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(tmp_path_factory.mktemp("good"), monkeypatch)
        result = world.run()
        return result, world.samples(result)


Good = tuple[StageResult, dict[str, Any]]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_every_condition_is_measured_in_a_process_of_its_own(good: Good) -> None:
    result, samples = good
    rows = result.measurements
    for metric in ("TimeToFirstToken/p50@1", "TimePerOutputToken/p50@1", "OutputTokensPerSecond@1"):
        assert set(rows[metric]) == {"base", "dynamic", "merged", "quantized"}
        assert all(float(value) > 0 for value in rows[metric].values())
    assert float(rows["TimePerOutputToken/p50@1"]["base"]) >= 3.0
    assert all(int(v) > 1_000_000 for v in rows["PeakMemoryBytes"].values())
    assert sorted(p["condition"] for p in samples["processes"]) == [
        "base", "dynamic", "merged", "quantized",
    ]  # fmt: skip
    assert samples["environment"]["device"] == "CPU"
    for process in samples["processes"]:
        assert len(process["loops"]["1"]) == requests_in_loop(1)
        assert all(request["outputTokens"] == 12 for request in process["loops"]["1"])
    assert result.notes["device"] == "CPU"


def test_repeated_answers_are_recorded_and_tell_the_models_apart(good: Good) -> None:
    recorded = good[1]["expectations"]
    assert recorded["artifact"] == "sha256:quantized"
    assert len(recorded["prompts"]) == protocol.QUESTIONS
    assert recorded["comparedWith"] == ["base", "dynamic", "merged"]
    assert all(p["answer"].startswith("q") for p in recorded["prompts"])
    assert all(p["distinguishes"] == ["base", "dynamic", "merged"] for p in recorded["prompts"])


def test_answers_that_change_are_not_recorded(world: World) -> None:
    flaky = quick(says="q", flaky_after=3)
    result = world.run(quantized=flaky)
    assert world.samples(result)["expectations"].get("prompts", []) == []
    assert result.notes["verifyPrompts"].startswith("0 of")


def test_a_slow_first_request_is_warm_up(world: World) -> None:
    result = world.run(base=quick(slow_first_s=0.8))
    arrivals = world.samples(result)["processes"]
    base = next(p for p in arrivals if p["condition"] == "base")["loops"]["1"]
    firsts = [r["arrivalsMicroseconds"][0] - r["sentMicroseconds"] for r in base]
    assert max(firsts) < 800_000


def test_tokens_in_bursts_are_no_speed(world: World) -> None:
    result = world.run(quantized=quick(says="q", burst=True))
    assert "quantized" not in result.measurements["OutputTokensPerSecond@1"]
    assert "base" in result.measurements["OutputTokensPerSecond@1"]
    assert result.notes["invalid/quantized@1"] == BURST
    assert "quantized@1" in result.message


def test_an_early_end_is_no_speed(world: World) -> None:
    result = world.run(base=quick(stops_after=5))
    assert "base" not in result.measurements["TimeToFirstToken/p50@1"]
    assert "5 tokens instead of 12" in result.notes["invalid/base@1"]


def test_an_engine_that_says_one_token_whatever_it_is_asked_is_no_speed(world: World) -> None:
    """Q11: the sign of activations that overflow in the engine itself."""
    result = world.run(quantized=quick(says="!", repeats=True), base=quick(says="!", repeats=True))
    assert "quantized" not in result.measurements["OutputTokensPerSecond@1"]
    assert "'!' again and again: its activations overflow" in result.notes["invalid/quantized@1"]
    assert "base" in result.measurements["OutputTokensPerSecond@1"], "it does not serve"


def test_an_engine_that_refuses_the_adapter_leaves_the_others_measured(world: World) -> None:
    result = world.run(dynamic=Script(dies_on_start="no such adapter"))
    assert "no such adapter" in result.notes["notApplicable/dynamic"]
    assert set(result.measurements["OutputTokensPerSecond@1"]) == {"base", "merged", "quantized"}


def test_an_adapter_that_changes_nothing_is_not_measured_as_one(world: World) -> None:
    result = world.run(dynamic=quick())
    assert result.notes["notApplicable/dynamic"] == INACTIVE_ADAPTER
    assert "dynamic" not in result.measurements["OutputTokensPerSecond@1"]


@pytest.mark.parametrize("when", ["dies_on_start", "dies_on_request"])
def test_an_engine_that_dies_is_refused_with_the_end_of_its_log(world: World, when: str) -> None:
    with pytest.raises(Refused, match=r"quantized cannot be measured: .*unknown format") as refused:
        world.run(quantized=quick(**{when: "unknown format"}))
    assert refused.value.reason is Reason.ENGINE_FAILED


def test_no_engine_is_left_running(good: Good) -> None:
    mine = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    children = [int(pid) for pid in Path(mine).read_text().split()]
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
    assert not [c for c in commands if "fake_engine" in c]


def test_raw_samples_are_plain_json(good: Good) -> None:
    text = json.dumps(good[1])
    assert "Infinity" not in text
    assert "NaN" not in text
