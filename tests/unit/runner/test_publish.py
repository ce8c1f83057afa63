"""publish: the release follows from the store's own measurements or is not written."""

import json
from pathlib import Path

import pytest

from finishedruns import Finished
from lora_api.gates import Judgement, Verdict
from lora_api.jobcontract import Reason, Stage
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import StageError


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
