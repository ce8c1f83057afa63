"""What is removed from a bucket, and that nothing which is needed ever is."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api import layout
from lora_api.jobcontract import Progress, Reason
from lora_api.retention import kept_releases
from lora_jobs.collecting import Garbage, Work, bytes_of, collect, filed_releases, made_by
from lora_jobs.errors import Refused
from lora_jobs.store.artifacts import has_artifact
from lora_jobs.store.interface import ObjectStore
from releasebucket import ReleaseBucket


def silent(progress: Progress) -> None:
    """Nobody looks."""


@contextmanager
def bucket() -> Iterator[ReleaseBucket]:
    with tempfile.TemporaryDirectory() as folder:
        yield ReleaseBucket(Path(folder))


class Cut(Exception):
    """The process ends here."""


class CutStore:
    """A store whose process is killed after so many removals."""

    def __init__(self, store: ObjectStore, removals: int) -> None:
        self._store, self._left = store, removals

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def delete(self, key: str) -> None:
        """Or be killed."""
        if not self._left:
            raise Cut
        self._left -= 1
        self._store.delete(key)


RUNS = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.integers(0, 2), st.integers(0, 2)),
    min_size=1, max_size=6, unique=True,
)  # fmt: skip


@given(RUNS, st.data())
def test_what_stays_is_whole_and_of_what_goes_nothing_is_left(
    runs: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    with bucket() as b:
        published = [(name, b.publish(name, *what)) for name, *what in runs]
        ours = [release for name, release in published if name == "one"]
        keep = data.draw(st.lists(st.sampled_from(ours or ["none"]), unique=True))
        garbage = b.garbage("one", *keep)
        cut = CutStore(b.store, data.draw(st.integers(0, 40)))
        try:
            collect(cut, "one", garbage, silent)  # type: ignore[arg-type]
        except Cut:
            assert all(
                b.is_whole(f) for f in filed_releases(b.store) if f.name == "two" or
                f.record.release.id in keep
            )  # fmt: skip
            collect(b.store, "one", b.garbage("one", *keep), silent)
        staying = filed_releases(b.store)
        expected = {(n, r) for n, r in published if n == "two" or r in keep}
        assert {(f.name, f.record.release.id) for f in staying} == expected
        assert all(b.is_whole(f) for f in staying)
        made = {f.record.release.artifact for f in staying}
        made |= {made_by(b.store)(Work("merge", f.record.stages["merge"])) for f in staying}
        left = {o.key.split("/")[1].replace("-", ":") for o in b.store.list("artifacts/")}
        assert left == made
        samples = {f.record.stages["benchmark/default"] for f in staying}
        assert {o.key for o in b.store.list("samples/")} == {layout.samples(h) for h in samples}


def test_an_adapter_s_merged_model_stays_while_another_recipe_of_it_does() -> None:
    with bucket() as b:
        old, new = b.publish("one", 1, 128), b.publish("one", 1, 32)
        garbage = b.garbage("one", new)
        assert garbage.releases == (old,)
        assert {w.stage for w in garbage.works} == {"quantize", "benchmark"}
        assert len(garbage.artifacts) == 1
        assert bytes_of(b.store, garbage)[garbage.artifacts[0]] > 0


def test_what_somebody_publishes_meanwhile_stays_whole() -> None:
    with bucket() as b:
        b.publish("one", 1, 128)
        new = b.publish("one", 2, 128)
        garbage = b.garbage("one", new)
        b.publish("two", 1, 128)  # the same bytes, after the look and before the removal
        collect(b.store, "one", garbage, silent)
        (two,) = [f for f in filed_releases(b.store) if f.name == "two"]
        assert has_artifact(b.store, two.record.release.artifact)


def test_young_releases_and_verdicts_stay() -> None:
    with bucket() as b:
        old, new = b.publish("one", 1, 128), b.publish("one", 2, 128)
        assert b.garbage("one", new, younger_than=0.0) == Garbage(too_young=(old,))
        collect(b.store, "one", b.garbage("one", new), silent)
        assert b.store.head(layout.verdict("one", old, "g")), "history"


def test_nothing_is_removed_while_a_record_cannot_be_read() -> None:
    with bucket() as b:
        b.publish("one", 1, 128)
        b.store.write(layout.release("two", "00000000"), b"{}")
        with pytest.raises(Refused, match="nothing is collected until it is removed") as caught:
            b.garbage("one")
        assert caught.value.reason is Reason.DIGEST_MISMATCH


@given(
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.integers(0, 7),
    st.sets(st.sampled_from("abcdef")),
)
def test_the_newest_stay_and_what_is_in_use(
    newest_first: list[str], keep: int, in_use: set[str]
) -> None:
    kept = kept_releases(newest_first, keep, in_use)
    assert set(kept) == set(newest_first[:keep]) | (in_use & set(newest_first))
    assert list(kept) == [r for r in newest_first if r in kept]
