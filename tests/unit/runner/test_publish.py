"""publish: the release follows from the store's own measurements or is not written."""

import json
from pathlib import Path

import pytest

from localruns import LocalSetting
from lora_api.gates import Judgement, Verdict
from lora_api.jobcontract import Reason, Stage, StageRequest, StageResult
from lora_api.line import Line, walk
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import StageError
from lora_jobs.runner import run_request
from resolving import requests_of, resolve


class Finished:
    """A store in which a line has come to its end, and the request to publish it."""

    def __init__(self, folder: Path, worse: str) -> None:
        self.folder = folder
        setting = LocalSetting(folder)
        setting.run(FAKE_STAGES_WORSE=worse)
        for written in (folder / "store/team").glob("releases/demo/**/*.json"):
            written.unlink()
        requests = requests_of(setting.spec)
        resolved = resolve(setting.spec, folder / "work", "local")
        known = {r.input_hash: r for r in resolved.done}
        pins = {name: pin.digest for name, pin in resolved.pins.items()}
        self.line: Line = walk(
            requests.spec, "demo", pins, resolved.image, lambda c: known.get(c.input_hash)
        )
        self.publication = requests.publish(self.line, resolved.pins, resolved.image)
        self.report = requests.report(self.line, resolved.pins, resolved.image)

    def publish(self, request: StageRequest | None = None) -> StageResult:
        request = request or self.publication
        assert request is not None
        return run_request(request, self.folder / "work")

    @property
    def written(self) -> dict[str, bytes]:
        place = self.folder / "store/team/releases/demo"
        return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*.json")}


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")


@pytest.fixture
def good(tmp_path: Path) -> Finished:
    return Finished(tmp_path, worse="1")


def test_a_release_and_its_verdict_are_written_once(good: Finished) -> None:
    release = good.line.release
    assert release is not None
    assert good.publish().digest == release.artifact
    written = good.written
    assert f"{release.id}.json" in written
    assert len([name for name in written if "/verdicts/" in name]) == 1
    record = json.loads(written[f"{release.id}.json"])
    assert record["release"] == release.to_json()
    assert record["measurements"] == good.line.measurements
    assert set(record["pins"]) == {"base", "adapter0", "calibration0", "task"}
    good.publish()
    assert good.written == written


@pytest.mark.fault("F32")
def test_a_made_up_judgement_publishes_nothing(tmp_path: Path, good: Finished) -> None:
    bad = Finished(tmp_path / "bad", worse="1.3")
    assert bad.publication is None
    forged = bad.report.model_copy(
        update={
            "call": bad.report.call.model_copy(update={"stage": Stage.PUBLISH}),
            "release": good.line.release,
            "judgement": Judgement(verdict=Verdict.PASSED, gates=[]),
        }
    )
    with pytest.raises(StageError, match="does not follow from the measurements") as caught:
        bad.publish(forged)
    assert caught.value.reason is Reason.INVALID_INPUT
    assert bad.written == {}


@pytest.mark.fault("F34")
def test_a_release_whose_artifact_was_lost_is_not_published(good: Finished) -> None:
    release = good.line.release
    assert release is not None
    artifact = good.folder / "store/team/artifacts" / release.artifact.replace(":", "-")
    (artifact / "config.json").unlink()
    with pytest.raises(StageError, match="no longer holds what quantize made") as caught:
        good.publish()
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND
    assert good.written == {}
