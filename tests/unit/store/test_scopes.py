"""One bucket, many namespaces: what another one wrote there is neither read nor replaced."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api import layout
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.line import walk
from lora_api.spec import parse_spec
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.store.actions import write_action
from lora_jobs.store.artifacts import has_artifact, publish_artifact
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import ObjectStore
from resolving import resolve
from tinyfiles import local_spec, write_sources

FOREIGN = ("attacker", "eu/team", "team/actions", "team/artifacts", "team/releases", "tea")
"""Scopes of other namespaces and clusters, some of them below `team` as a longer URI makes them."""


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")


class World:
    """Sources and a bucket; `team/demo` is ours."""

    def __init__(self, folder: Path) -> None:
        self.bucket = DirectoryStore(folder / "store")
        self.spec: dict[str, Any] = local_spec(write_sources(folder / "sources"), self.bucket.root)
        self.work = folder / "work"

    def forge(self, store: ObjectStore, word: str) -> list[str]:
        """Entries for exactly the work that ours asks for, with files of the attacker."""
        resolved, spec = resolve(self.spec, self.work), parse_spec(self.spec)
        pins = {name: pin.digest for name, pin in resolved.pins.items()}
        known: dict[str, StageResult] = {}
        for _ in range(2):
            line = walk(spec, "demo", pins, resolved.image, lambda c: known.get(c.input_hash))
            assert line.missing is not None
            known[line.missing.input_hash] = self._forged(store, line.missing, word)
        return [result.digest for result in known.values()]

    def _forged(self, store: ObjectStore, call: StageCall, word: str) -> StageResult:
        model = self.work / word / call.stage
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"by": word, "stage": call.stage}))
        digest = publish_artifact(store, model)
        result = StageResult(stage=call.stage, input_hash=call.input_hash, digest=digest)
        return write_action(store, call, result, {})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.fault("F38")
@pytest.mark.parametrize("foreign", FOREIGN)
def test_entries_that_another_namespace_wrote_for_our_work_are_not_taken(
    world: World, foreign: str
) -> None:
    digests = world.forge(world.bucket.below(foreign), "attacker")
    assert resolve(world.spec, world.work).done == []
    assert [has_artifact(world.bucket.below("team"), digest) for digest in digests] == [False] * 2


def test_the_same_entries_in_our_own_scope_would_be(world: World) -> None:
    digests = world.forge(world.bucket.below("team"), "ours")
    assert [result.digest for result in resolve(world.spec, world.work).done] == digests


@pytest.mark.fault("F38")
def test_our_own_entries_stand_whatever_others_write_beside_them(world: World) -> None:
    ours = world.forge(world.bucket.below("team"), "ours")
    for foreign in FOREIGN:
        world.forge(world.bucket.below(foreign), foreign.replace("/", "-"))
    assert [result.digest for result in resolve(world.spec, world.work).done] == ours


# --- keys ---------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["team", "pins", "probes", "actions", "artifacts", "releases", "reports", "verdicts", "demo"]
)
HASHES = st.sampled_from(["a" * 64, "b" * 64])
KEYS = st.one_of(
    st.builds(layout.pin, WORDS, HASHES),
    st.builds(layout.probe, WORDS),
    st.builds(layout.action, st.sampled_from([stage.value for stage in Stage]), HASHES),
    st.builds(lambda h: layout.manifest(f"sha256:{h}"), HASHES),
    st.builds(lambda h, name: f"{layout.artifact(f'sha256:{h}')}/{name}", HASHES, WORDS),
    st.builds(lambda r, g: f"{layout.report(r, g)}/report.json", HASHES, HASHES),
    st.builds(layout.samples, HASHES),
    st.builds(layout.release, WORDS, st.just("12345678")),
    st.builds(layout.verdict, WORDS, st.just("12345678"), HASHES),
)
SCOPES = st.builds(layout.scope, WORDS, st.one_of(st.just(""), WORDS))


@given(SCOPES, SCOPES, KEYS, KEYS)
def test_two_scopes_never_share_a_key_however_they_are_called(
    one: str, other: str, first: str, second: str
) -> None:
    assert one == other or f"{one}/{first}" != f"{other}/{second}"
