"""A store that is away for minutes costs waiting, on a clock of our own, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from lora_api.jobcontract import Reason
from lora_jobs.errors import Waiting
from lora_jobs.store.artifacts import fetch_artifact, has_artifact, publish_artifact
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.patient import PATIENCE_SECONDS, PatientStore


class Outage:
    """A store that answers nothing until a time, and may write before it does not answer."""

    def __init__(self, store: Any, until: float, writes_first: bool = False) -> None:
        self.store, self.until, self.writes_first = store, until, writes_first
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def below(self, prefix: str) -> "Below":
        return Below(self, self.store.below(prefix))

    def __getattr__(self, name: str) -> Any:
        return getattr(Below(self, self.store), name)


class Below:
    """A place in it; the outage is that of all."""

    def __init__(self, outage: Outage, store: Any) -> None:
        self.outage, self.store = outage, store

    def below(self, prefix: str) -> "Below":
        return Below(self.outage, self.store.below(prefix))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        if name == "uri":
            return method

        def answer(*arguments: Any, **named: Any) -> Any:
            if self.outage.now >= self.outage.until:
                return method(*arguments, **named)
            if self.outage.writes_first and name in ("create", "replace"):
                method(*arguments, **named)
            raise Waiting(Reason.STORE_UNREACHABLE, "no answer")

        return answer


def patient(outage: Outage) -> PatientStore:
    return PatientStore(outage, outage.sleep)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_bytes(b"{}")
    return made


def test_an_outage_of_five_minutes_is_outlasted(tmp_path: Path, folder: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=300)
    digest = publish_artifact(patient(outage), folder)
    assert has_artifact(outage.store, digest)
    assert 300 <= outage.now <= PATIENCE_SECONDS + 60


def test_waits_grow_and_stay_below_a_bound(tmp_path: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=300)
    patient(outage).check()
    assert outage.waits[0] < 3
    assert max(outage.waits) <= 31
    assert len(outage.waits) < 30


def test_an_outage_without_end_is_told_as_it_is(tmp_path: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=float("inf"))
    with pytest.raises(Waiting, match="no answer"):
        patient(outage).head("key")
    assert PATIENCE_SECONDS <= outage.now <= PATIENCE_SECONDS + 60


def test_another_refusal_is_told_at_once(tmp_path: Path, folder: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=0)
    with pytest.raises(Waiting, match="no manifest"):
        fetch_artifact(patient(outage), "sha256:" + "0" * 64, tmp_path / "fetched")
    assert outage.waits == []


def test_a_document_whose_reply_was_lost_is_ours(tmp_path: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=0.5, writes_first=True)
    assert patient(outage).create("entry", b"ours")
    assert outage.store.read("entry").data == b"ours"


def test_a_document_of_another_writer_is_not_ours_however_often_we_ask(tmp_path: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=0.5)
    outage.store.create("entry", b"theirs")
    assert not patient(outage).create("entry", b"ours")
    assert outage.store.read("entry").data == b"theirs"


def test_a_replacement_whose_reply_was_lost_is_ours(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.write("entry", b"before")
    before = store.head("entry")
    assert before is not None
    outage = Outage(store, until=0.5, writes_first=True)
    assert patient(outage).replace("entry", b"ours", before.etag)


def test_equal_bytes_found_at_the_first_attempt_are_somebody_elses(tmp_path: Path) -> None:
    outage = Outage(DirectoryStore(tmp_path / "store"), until=0)
    outage.store.create("entry", b"same")
    assert not patient(outage).create("entry", b"same")
