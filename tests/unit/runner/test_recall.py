"""recall: an earlier release comes from its record, whole, or not at all."""

import json
from pathlib import Path

import pytest

from localruns import LocalSetting
from lora_api.jobcontract import ExitCode, Reason, StageResult
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import StageError
from lora_jobs.runner import run_request
from resolving import requests_of


class Published:
    """A store that holds one release of `demo`."""

    def __init__(self, folder: Path) -> None:
        self.setting = LocalSetting(folder)
        self.setting.run(FAKE_STAGES_WORSE="1")
        self.scope = folder / "store/team"
        (self.file,) = (self.scope / "releases/demo").glob("*.json")
        self.record = json.loads(self.file.read_text())
        self.release = self.record["release"]["id"]

    def recall(self, release: str = "") -> StageResult:
        request = requests_of(self.setting.spec).recall(release or self.release)
        return run_request(request, self.scope.parent / "work")

    def refusal(self, release: str = "") -> StageError:
        with pytest.raises(StageError) as refused:
            self.recall(release)
        assert refused.value.exit_code is ExitCode.REFUSED
        return refused.value


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")
    return Published(tmp_path)


def test_all_that_a_rollout_needs_stands_in_the_record(published: Published) -> None:
    result = published.recall()
    assert result.release is not None
    assert result.release.to_json() == published.record["release"]
    assert result.candidate == "default"
    assert result.benchmark == published.record["stages"]["benchmark/default"]
    assert result.digest == result.release.artifact


def test_a_release_that_was_never_published_is_named(published: Published) -> None:
    refusal = published.refusal("00000000")
    assert refusal.reason is Reason.SOURCE_NOT_FOUND
    assert "no release 00000000" in str(refusal)


@pytest.mark.fault("F38")
def test_a_release_of_another_namespace_is_not_found(published: Published) -> None:
    request = requests_of(published.setting.spec).recall(published.release)
    for scope in ("other", "eu/team", "team/releases", "tea"):
        abroad = request.store.model_copy(update={"scope": scope})
        with pytest.raises(StageError) as refused:
            run_request(request.model_copy(update={"store": abroad}), published.scope.parent / "w")
        assert refused.value.reason is Reason.SOURCE_NOT_FOUND


@pytest.mark.fault("F34")
def test_a_release_whose_files_are_gone_is_refused_before_any_pod_starts(
    published: Published,
) -> None:
    artifact = published.record["release"]["artifact"].replace(":", "-")
    (published.scope / "artifacts" / artifact / "config.json").unlink()
    refusal = published.refusal()
    assert refusal.reason is Reason.SOURCE_NOT_FOUND
    assert "are gone" in str(refusal)


@pytest.mark.parametrize("text", ['{"release": 1}', "another"])
def test_a_damaged_record_is_refused(published: Published, text: str) -> None:
    if text == "another":
        release = published.record["release"] | {"id": "11111111"}
        text = json.dumps(published.record | {"release": release})
    published.file.write_text(text)
    assert published.refusal().reason is Reason.DIGEST_MISMATCH
