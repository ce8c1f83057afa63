"""The copy of a checkpoint in the store: whole generations, nothing after the end."""

from pathlib import Path

import pytest

from lora_api.jobcontract import Reason
from lora_api.spec import QuantizationMethod
from lora_jobs.errors import Waiting
from lora_jobs.quantizing.checkpoints import CURRENT, OBJECTS, Mirror, why_no_checkpoints
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import FileHash


def generation(folder: Path, number: int, *objects: str) -> None:
    """What GPTQModel leaves: objects, then their name; unreferenced objects are collected."""
    (folder / OBJECTS).mkdir(parents=True, exist_ok=True)
    for name in objects:
        (folder / OBJECTS / name).write_text(f"content of {name}")
    (folder / CURRENT).write_text(f"generation {number}")
    for file in (folder / OBJECTS).iterdir():
        if file.name not in objects:
            file.unlink()


def keys(store: DirectoryStore) -> set[str]:
    return {found.key for found in store.list()}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def test_a_newer_generation_replaces_the_older_one_and_keeps_what_both_have(
    tmp_path: Path, store: DirectoryStore
) -> None:
    folder = tmp_path / "checkpoint"
    mirror = Mirror(folder, store)
    mirror.copy()
    assert keys(store) == set()
    generation(folder, 1, "layer0", "state1")
    mirror.copy()
    kept = store.head(f"{OBJECTS}/layer0")
    generation(folder, 2, "layer0", "layer1", "state2")
    (folder / OBJECTS / ".half.tmp").write_text("half a file")
    mirror.copy()
    assert keys(store) == {CURRENT, *(f"{OBJECTS}/{n}" for n in ("layer0", "layer1", "state2"))}
    assert store.head(f"{OBJECTS}/layer0") == kept, "uploaded twice"


def test_an_interrupted_block_leaves_a_generation_that_the_next_one_finds(
    tmp_path: Path, store: DirectoryStore
) -> None:
    def terminated() -> None:
        with Mirror(tmp_path / "first", store):
            generation(tmp_path / "first", 1, "layer0", "state1")
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        terminated()
    with Mirror(tmp_path / "second", store):
        assert (tmp_path / "second" / CURRENT).read_text() == "generation 1"
        content = {f.name: f.read_text() for f in (tmp_path / "second" / OBJECTS).iterdir()}
        assert content == {n: f"content of {n}" for n in ("layer0", "state1")}
    assert keys(store) == set()


def test_a_copy_that_lost_an_object_is_not_offered(tmp_path: Path, store: DirectoryStore) -> None:
    generation(tmp_path / "first", 1, "layer0", "state1")
    Mirror(tmp_path / "first", store).copy()
    store.delete(CURRENT)
    with Mirror(tmp_path / "second", store):
        assert not (tmp_path / "second" / CURRENT).exists()


def test_a_store_that_fails_costs_the_checkpoint_and_not_the_work(
    tmp_path: Path,
) -> None:
    class Failing(DirectoryStore):
        def upload(
            self, key: str, file: Path, content_type: str = "", known: FileHash | None = None
        ) -> None:
            raise Waiting(Reason.STORE_UNREACHABLE, "no answer")

    folder = tmp_path / "checkpoint"
    done = []
    with Mirror(folder, Failing(tmp_path / "store")) as mirror:
        generation(folder, 1, "layer0")
        with pytest.raises(Waiting):
            mirror.copy()
        done.append(True)
    assert done == [True]
    assert not (tmp_path / "store" / CURRENT).exists()


@pytest.mark.parametrize(("model_type", "reason"), [("llama", ""), ("gemma3", "model_type gemma3")])
def test_models_whose_state_cannot_be_kept_are_named(
    tmp_path: Path, model_type: str, reason: str
) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    told = why_no_checkpoints(tmp_path, QuantizationMethod.GPTQ)
    assert reason in told
    assert bool(told) == bool(reason)
    assert "AWQ" in why_no_checkpoints(tmp_path, QuantizationMethod.AWQ)
