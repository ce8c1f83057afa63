"""`lora-jobs stage` as a Job's container runs it: exit codes, result document, reuse, SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from localruns import LocalSetting
from lora_api import layout
from lora_api.digests import digest_of
from lora_api.jobcontract import (
    REQUEST_ENV,
    RESULT_PATH_ENV,
    WORK_DIR_ENV,
    Progress,
    Reason,
    StageFailure,
    StageResult,
    parse_outcome,
)
from lora_api.line import walk
from lora_jobs.connections import LOCAL_RUN_ENV
from resolving import requests_of, resolve


class Job:
    """The environment of a stage Job for the first working stage, merge."""

    def __init__(self, folder: Path) -> None:
        self.setting = LocalSetting(folder)
        self.result = folder / "termination-log"
        spec = self.setting.spec
        requests = requests_of(spec)
        resolved = resolve(spec, folder / "work")
        pins = {name: pin.digest for name, pin in resolved.pins.items()}
        call = walk(requests.spec, "demo", pins, resolved.image, lambda _: None).missing
        assert call is not None
        self.request = requests.work(call, resolved.pins)

    def environment(self, **more: str) -> dict[str, str]:
        return self.setting.child_environment(**{
            REQUEST_ENV: self.request.to_env(),
            RESULT_PATH_ENV: str(self.result),
            WORK_DIR_ENV: str(self.setting.folder / "work"),
            LOCAL_RUN_ENV: "1",
        } | more)  # fmt: skip

    def run(self, **more: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "lora_jobs", "stage"], env=self.environment(**more),
            text=True, capture_output=True, check=False, timeout=60,
        )  # fmt: skip

    @property
    def outcome(self) -> StageResult | StageFailure | None:
        return parse_outcome(self.result.read_text())


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")
    return Job(tmp_path)


def test_a_stage_leaves_its_result_and_ends_with_0(job: Job) -> None:
    ended = job.run()
    assert ended.returncode == 0, ended.stderr
    assert isinstance(job.outcome, StageResult)
    assert job.outcome.input_hash == job.request.call.input_hash
    assert job.outcome.digest.startswith("sha256:")
    progress = [Progress.from_line(line) for line in ended.stdout.splitlines()]
    assert progress[-1] is not None
    assert progress[-1].done == progress[-1].total


@pytest.mark.fault("F3")
def test_the_same_request_again_runs_nothing_and_answers_the_same(job: Job) -> None:
    job.run()
    first = job.outcome
    assert job.setting.ran() == ["merge"]
    assert job.run().returncode == 0
    second = job.outcome
    assert isinstance(first, StageResult)
    assert isinstance(second, StageResult)
    assert second.digest == first.digest
    assert job.setting.ran() == []


def test_when_the_artifact_was_lost_the_stage_makes_it_again(job: Job) -> None:
    job.run()
    assert isinstance(job.outcome, StageResult)
    digest = job.outcome.digest
    place = job.setting.folder / "store/team/artifacts" / digest.replace(":", "-")
    (place / "config.json").unlink()
    job.setting.ran()
    assert job.run().returncode == 0
    assert job.setting.ran() == ["merge"]
    assert isinstance(job.outcome, StageResult)
    assert job.outcome.digest == digest
    assert (place / "config.json").exists()


def test_a_refusal_ends_with_2_and_one_line_says_why(job: Job) -> None:
    ended = job.run(FAKE_STAGES_REFUSE="merge")
    assert ended.returncode == 2
    assert ended.stderr == ("InvalidInput: the test wants it refused; want something else\n")
    assert job.outcome == StageFailure(
        failure=Reason.INVALID_INPUT, message="the test wants it refused; want something else"
    )


def test_an_error_is_never_cached(job: Job) -> None:
    job.run(FAKE_STAGES_REFUSE="merge")
    job.run(FAKE_STAGES_CRASH="merge")
    assert job.run().returncode == 0
    assert job.setting.ran() == ["merge", "merge", "merge"]


def test_a_missing_world_ends_with_3(job: Job) -> None:
    (job.setting.folder / "sources/base/model.safetensors").unlink()
    ended = job.run()
    assert ended.returncode == 3
    assert isinstance(job.outcome, StageFailure)
    assert job.outcome.failure is Reason.SOURCE_CHANGED


def test_a_crash_ends_with_neither_and_leaves_no_result(job: Job) -> None:
    assert job.run(FAKE_STAGES_CRASH="merge").returncode == 7
    assert not job.result.exists()


@pytest.mark.parametrize("text", ["", "{", '{"call": {"stage": "bake"}}'])
def test_no_request_is_a_usage_error(job: Job, text: str) -> None:
    ended = job.run(**{REQUEST_ENV: text})
    assert ended.returncode == 64
    assert REQUEST_ENV in ended.stderr


@pytest.mark.fault("F35")
def test_a_tampered_pin_is_not_followed(job: Job) -> None:
    key = layout.pin("demo", job.request.sources["base"].key)
    pin = job.setting.folder / "store/team" / key
    document = json.loads(pin.read_text())
    document["files"][0]["sha256"] = "0" * 64
    pin.write_text(json.dumps(document))
    assert job.run().returncode == 3
    document["digest"] = digest_of(["", document["files"]])
    pin.write_text(json.dumps(document))
    assert job.run().returncode == 3
    assert isinstance(job.outcome, StageFailure)
    assert job.outcome.failure in (Reason.DIGEST_MISMATCH, Reason.SOURCE_NOT_FOUND)


def test_sigterm_ends_a_stage_promptly_with_143_and_no_result(job: Job) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lora_jobs", "stage"], text=True, stdout=subprocess.PIPE,
        env=job.environment(FAKE_STAGES_HANG="merge"),
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline().strip() != "hanging":
        assert process.poll() is None
    asked = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert time.monotonic() - asked < 5
    assert not job.result.exists()
    assert job.run().returncode == 0, "and it can be done again"


def test_sigterm_ends_even_a_stage_that_does_not_listen(job: Job) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lora_jobs", "stage"], text=True, stdout=subprocess.PIPE,
        env=job.environment(FAKE_STAGES_HANG="merge", FAKE_STAGES_DEAF="1"),
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline().strip() != "hanging":
        assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 143
