"""publish, recall and fetch with signatures: only what a trusted key has signed is taken up."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finishedruns import Finished
from lora_api.jobcontract import (
    REQUEST_ENV,
    RESULT_PATH_ENV,
    SIGNING_DIR_ENV,
    Reason,
    Stage,
    StageCall,
    StageFailure,
    StageRequest,
    StageResult,
    parse_outcome,
)
from lora_jobs.attesting.statement import BUILD_TYPE
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import StageError, Waiting
from lora_jobs.runner import run_request
from resolving import resolve
from signingkeys import KINDS, KeyPair, provenance

Json = dict[str, Any]
OURS, OTHERS = KeyPair("p256"), KeyPair("ed25519")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCAL_RUN_ENV, "1")
        yield Finished(tmp_path_factory.mktemp("measured"), worse="1")


@pytest.fixture
def finished(measured: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Finished:
    monkeypatch.setenv(SIGNING_DIR_ENV, OURS.mounted(tmp_path / "secret"))
    measured.forget_releases()
    return measured


def id_of(finished: Finished) -> str:
    assert finished.line.release is not None
    return finished.line.release.id


def envelope_file(finished: Finished, pair: KeyPair = OURS) -> Path:
    return finished.place / id_of(finished) / "provenance" / f"{pair.fingerprint}.json"


def statement_of(finished: Finished, pair: KeyPair = OURS) -> Json:
    envelope = json.loads(envelope_file(finished, pair).read_text())
    said: Json = json.loads(base64.b64decode(envelope["payload"]))
    return said


def sign_again(finished: Finished, said: Json, pair: KeyPair) -> None:
    """Put a statement there as whoever holds this key would."""
    from lora_jobs.attesting.envelope import seal
    from lora_jobs.attesting.keys import private_key

    file = envelope_file(finished, pair)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(seal(json.dumps(said).encode(), private_key(pair.private_pem))))


def recall(finished: Finished, *trusted: KeyPair) -> StageResult:
    request = finished.requests(provenance(*trusted)).recall(id_of(finished))
    return run_request(request, finished.folder / "work")


def fetch(finished: Finished, folder: Path, *trusted: KeyPair) -> tuple[int, str, str]:
    """Exit code, what the operator is told, and the log of a serving pod's first container."""
    release = finished.line.release
    assert release is not None
    keys = [pair.public_pem for pair in trusted]
    base = finished.requests().recall(release.id)
    request = base.model_copy(
        update={
            "call": StageCall(stage=Stage.VERIFY, parents={"artifact": release.artifact}),
            "release": release if keys else None,
            "public_keys": keys or None,
        }
    )
    told = folder / "told"
    told.unlink(missing_ok=True)
    ended = subprocess.run(
        [sys.executable, "-m", "lora_jobs", "fetch", "--digest", release.artifact,
         "--output", str(folder / "model")],
        env=os.environ | {REQUEST_ENV: request.to_env(), RESULT_PATH_ENV: str(told)},
        text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    outcome = parse_outcome(told.read_text()) if told.exists() else None
    reason = outcome.failure.value if isinstance(outcome, StageFailure) else ""
    return ended.returncode, reason, ended.stdout + ended.stderr


# --- what is said ---------------------------------------------------------------------------------


def test_the_statement_names_every_file_every_source_every_stage_and_the_verdict(
    finished: Finished,
) -> None:
    finished.publish(provenance=provenance(OURS))
    said = statement_of(finished)
    release, artifact = finished.line.release, finished.line.artifact.removeprefix("sha256:")
    assert release is not None
    manifest = finished.folder / f"store/team/artifacts/sha256-{artifact}/manifest.json"
    files = {f["path"]: f["sha256"] for f in json.loads(manifest.read_text())["files"]}
    subjects = {s["name"]: s["digest"]["sha256"] for s in said["subject"]}
    assert subjects == files | {f"artifacts/sha256-{artifact}": artifact}
    definition, details = (said["predicate"][k] for k in ("buildDefinition", "runDetails"))
    assert definition["buildType"] == BUILD_TYPE
    parameters = definition["externalParameters"]
    assert parameters["release"] == release.to_json()
    assert parameters["object"] == {"scope": "team", "name": "demo"}
    assert parameters["gates"]["taskQuality"]["maxIncrease"] == "5%"
    sources = {d["name"]: d for d in definition["resolvedDependencies"]}
    assert set(sources) == {"base", "adapter0", "calibration0", "task"}
    pinned = finished.resolved.pins["base"]
    assert sources["base"]["uri"] == pinned.uri
    assert sources["base"]["digest"]["sha256"] == pinned.digest.removeprefix("sha256:")
    stages = {b["name"]: b for b in details["byproducts"]}
    assert set(stages) == {
        "merge", "quantize/default", "evaluate/default", "benchmark/default", "verdict",
    }  # fmt: skip
    hashes = {c.stage.value: c.input_hash for c, _ in finished.line.done}
    assert stages["merge"]["annotations"]["inputHash"] == hashes["merge"]
    assert "lora-operator" in stages["merge"]["annotations"]["tools"]
    assert stages["quantize/default"]["digest"]["sha256"] == artifact
    assert stages["verdict"]["annotations"]["verdict"] == "Passed"
    assert details["metadata"]["invocationId"]


def test_without_a_key_the_statement_is_there_unsigned(finished: Finished) -> None:
    finished.publish()
    said = json.loads(finished.written[f"{id_of(finished)}/provenance/unsigned.json"])
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"


def test_publishing_again_writes_nothing_and_a_new_key_signs_beside_the_old(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished.publish(provenance=provenance(OURS))
    first = finished.written
    finished.publish(provenance=provenance(OURS))
    assert finished.written == first
    monkeypatch.setenv(SIGNING_DIR_ENV, OTHERS.mounted(tmp_path / "next"))
    finished.publish(provenance=provenance(OURS, OTHERS))
    added = set(finished.written) - set(first)
    assert added == {f"{id_of(finished)}/provenance/{OTHERS.fingerprint}.json"}
    assert recall(finished, OURS).release == recall(finished, OTHERS).release


def test_an_envelope_that_somebody_else_put_there_is_signed_over(finished: Finished) -> None:
    file = envelope_file(finished)
    file.parent.mkdir(parents=True)
    for text in ('{"payload": "eA=="}', "no JSON", "[]"):
        file.write_text(text)
        finished.publish(provenance=provenance(OURS))
        assert recall(finished, OURS).release is not None


# --- who signs ------------------------------------------------------------------------------------


def failure(run: Any, *arguments: Any, **more: Any) -> StageError:
    with pytest.raises(Waiting) as caught:
        run(*arguments, **more)
    return caught.value


def test_nothing_is_published_that_could_not_be_signed(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SIGNING_DIR_ENV, str(tmp_path / "nothing"))
    assert failure(finished.publish, provenance=provenance()).reason is Reason.CREDENTIALS_MISSING
    untrusted = failure(finished.publish, provenance=provenance(OURS, signs=False))
    assert untrusted.reason is Reason.PROVENANCE_MISSING
    assert f"{id_of(finished)}.json" not in finished.written


def test_a_key_that_is_gone_is_not_missed_where_a_trusted_one_has_signed(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finished.publish(provenance=provenance(OURS))
    monkeypatch.setenv(SIGNING_DIR_ENV, str(tmp_path / "nothing"))
    assert finished.publish(provenance=provenance(OURS)).digest == finished.line.artifact


class Unresolved:
    """An object whose work is all ahead of it; in a cluster a missing Secret has its name."""

    def __init__(self, finished: Finished) -> None:
        self.finished = finished
        self.store = finished.folder / "another-store"
        shutil.rmtree(self.store, ignore_errors=True)

    def resolve(self, asked: Json) -> StageResult:
        artifact = {"uri": f"file://{self.store}"}
        document = self.finished.setting.spec | {"provenance": asked, "artifact": artifact}
        return resolve(document, self.finished.folder / "work", "local")


@pytest.mark.parametrize(
    ("kind", "says"),
    [("rsa", "another kind"), ("p384", "another kind"), ("encrypted", "is encrypted")],
)
def test_a_key_that_cannot_sign_is_told_before_any_work(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, says: str
) -> None:
    bad = KeyPair(kind)
    monkeypatch.setenv(SIGNING_DIR_ENV, bad.mounted(tmp_path / "bad"))
    told = failure(Unresolved(finished).resolve, provenance())
    assert told.reason is Reason.SIGNING_KEY_UNUSABLE
    assert says in str(told)
    assert "openssl genpkey" in str(told)
    assert not any(line in str(told) for line in bad.private_pem.decode().splitlines()[1:-1])


@pytest.mark.parametrize(
    ("asked", "reason", "says"),
    [
        (provenance(OTHERS), Reason.SIGNING_KEY_UNUSABLE, OURS.fingerprint[:16]),
        (provenance(OTHERS, signs=False), Reason.SIGNING_KEY_UNUSABLE, "signing.secretRef"),
        ({"signing": {"secretRef": {"name": "release-key"}, "key": "absent.pem"}},
         Reason.CREDENTIALS_MISSING, "absent.pem"),
        (provenance(OURS), None, ""),
    ],
    ids=["another key", "no key", "no file", "trusted"],
)  # fmt: skip
def test_resolve_tells_whether_what_will_be_signed_would_be_trusted(
    finished: Finished, asked: Json, reason: Reason | None, says: str
) -> None:
    scene = Unresolved(finished)
    if reason is None:
        assert scene.resolve(asked).pins
        return
    told = failure(scene.resolve, asked)
    assert told.reason is reason
    assert says in str(told)


def test_a_missing_secret_is_named_where_there_is_a_cluster(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_api.provenance import Provenance
    from lora_jobs.attesting.signing import signing_key

    monkeypatch.delenv(LOCAL_RUN_ENV)
    monkeypatch.setenv(SIGNING_DIR_ENV, "/nowhere")
    told = failure(signing_key, Provenance.model_validate(provenance()))
    assert told.reason is Reason.CREDENTIALS_MISSING
    assert 'Secret "release-key"' in str(told)
    assert "--from-file=key.pem" in str(told)


# --- who is believed ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_that_a_trusted_key_has_signed_is_recalled_and_fetched(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    pair = KeyPair(kind)
    monkeypatch.setenv(SIGNING_DIR_ENV, pair.mounted(tmp_path / "own"))
    finished.publish(provenance=provenance(pair))
    assert recall(finished, OTHERS, pair).release == finished.line.release
    code, _, log = fetch(finished, tmp_path, OTHERS, pair)
    assert code == 0, log
    assert (tmp_path / "model/config.json").is_file()


def test_a_release_that_no_trusted_key_has_signed_is_neither_recalled_nor_fetched(
    finished: Finished, tmp_path: Path
) -> None:
    finished.publish()
    finished.publish(provenance=provenance(OURS))
    told = failure(recall, finished, OTHERS)
    assert told.reason is Reason.PROVENANCE_MISSING
    assert OTHERS.fingerprint[:16] in str(told)
    code, reason, _ = fetch(finished, tmp_path, OTHERS)
    assert (code, reason) == (3, "ProvenanceMissing")
    assert not (tmp_path / "model").exists()


def other_artifact(said: Json) -> None:
    said["predicate"]["buildDefinition"]["externalParameters"]["release"]["artifact"] = (
        "sha256:" + "0" * 64
    )


def other_recipe(said: Json) -> None:
    release = said["predicate"]["buildDefinition"]["externalParameters"]["release"]
    release["recipe"]["args"] = ["--enforce-eager"]


def other_object(said: Json) -> None:
    said["predicate"]["buildDefinition"]["externalParameters"]["object"]["scope"] = "elsewhere"


def other_statement(said: Json) -> None:
    said["predicate"]["buildDefinition"]["buildType"] = "https://example.com/image"


def no_predicate(said: Json) -> None:
    said["predicate"] = "yes"


@pytest.mark.parametrize(
    "change", [other_artifact, other_recipe, other_object, other_statement, no_predicate]
)
def test_what_a_trusted_key_has_signed_for_something_else_vouches_for_nothing(
    finished: Finished, tmp_path: Path, change: Any
) -> None:
    finished.publish(provenance=provenance(OURS))
    said = statement_of(finished)
    change(said)
    sign_again(finished, said, OURS)
    told = failure(recall, finished, OURS)
    assert told.reason is Reason.PROVENANCE_INVALID
    code, reason, _ = fetch(finished, tmp_path, OURS)
    assert (code, reason) == (3, "ProvenanceInvalid")
    assert not (tmp_path / "model").exists()


def test_anothers_signature_under_a_trusted_keys_name_is_refused(finished: Finished) -> None:
    finished.publish(provenance=provenance(OURS))
    said = statement_of(finished)
    sign_again(finished, said, OTHERS)
    envelope_file(finished, OTHERS).replace(envelope_file(finished))
    assert failure(recall, finished, OURS).reason is Reason.PROVENANCE_INVALID


def test_a_pod_that_has_seen_the_signature_restarts_while_the_store_is_down(
    finished: Finished, tmp_path: Path
) -> None:
    finished.publish(provenance=provenance(OURS))
    assert fetch(finished, tmp_path, OURS)[0] == 0
    hidden = finished.folder / "store-is-down"
    (finished.folder / "store").rename(hidden)
    try:
        code, _, log = fetch(finished, tmp_path, OURS)
        untrusted = fetch(finished, tmp_path, OTHERS)
    finally:
        hidden.rename(finished.folder / "store")
    assert code == 0, log
    assert untrusted[:2] == (3, "ProvenanceMissing"), "what it kept is believed no further"


def test_a_request_that_trusts_keys_and_names_no_release_fetches_nothing(
    finished: Finished, tmp_path: Path
) -> None:
    finished.publish(provenance=provenance(OURS))
    request = StageRequest.model_validate(
        finished.requests(provenance(OURS)).recall(id_of(finished)).to_json()
    )
    ended = subprocess.run(
        [sys.executable, "-m", "lora_jobs", "fetch", "--digest", finished.line.artifact,
         "--output", str(tmp_path / "model")],
        env=os.environ | {REQUEST_ENV: request.to_env()},
        text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 64
    assert not (tmp_path / "model").exists()


# --- by hand --------------------------------------------------------------------------------------


def by_hand(finished: Finished, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lora_jobs", "provenance", "--name", "demo", "--release",
         id_of(finished), "--store", str(finished.folder / "store"), "--scope", "team", *options],
        text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


def test_by_hand_a_statement_is_printed_when_its_signature_holds_and_signed_once_more(
    finished: Finished, tmp_path: Path
) -> None:
    finished.publish(provenance=provenance(OURS))
    ours, others = tmp_path / "ours.pub", tmp_path / "others.pub"
    ours.write_text(OURS.public_pem)
    others.write_text(OTHERS.public_pem)
    refused = by_hand(finished, "--public-key", str(others))
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("ProvenanceMissing: ")
    new = Path(OTHERS.mounted(tmp_path / "others")) / "key.pem"
    printed = by_hand(finished, "--public-key", str(ours), "--sign-with", str(new))
    assert json.loads(printed.stdout) == statement_of(finished)
    assert by_hand(finished, "--public-key", str(others)).returncode == 0
    assert "unsigned statement" in by_hand(finished).stderr


def test_no_document_and_no_message_holds_the_key(finished: Finished) -> None:
    result = finished.publish(provenance=provenance(OURS))
    secret = OURS.canary.encode()
    assert secret not in result.to_termination_message().encode()
    assert not any(secret in content for content in finished.written.values())
