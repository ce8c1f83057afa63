"""The verbs as processes, over recorded objects and a kubectl that writes down what it is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_api.naming import ANNOTATION_RETRY
from lora_api.times import epoch_seconds
from planning_world import World, serving_world
from plugin import Plugin, RecordedKubectl
from recorded_objects import PHASES, document

ITS_BUCKET = {
    "connections": [
        {"name": "models", "s3": {"endpoint": "https://s3.internal:9000"}},
    ],
    "artifact": {"uri": "s3://models/lora", "connection": "models"},
}


def program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def recorded(folder: Path, world: World, **metadata: Any) -> RecordedKubectl:
    found = document(world)
    found["metadata"] |= metadata
    return RecordedKubectl(folder, found)


def test_status_shows_why_it_waits_and_what_to_do(tmp_path: Path) -> None:
    kubectl = recorded(tmp_path, PHASES["waiting-for-a-secret"].story())
    shown = kubectl.plugin("status", "demo", "-n", "team", "--context", "prod")
    assert shown["code"] == 0, shown["err"]
    assert "team/demo  Waiting  Ready=Unknown" in shown["out"]
    assert "CredentialsMissing: Secret s3: create it" in shown["out"]
    assert "kubectl lora retry demo" in shown["out"]
    (words,) = kubectl.asked
    assert words[:4] == ["--namespace", "team", "--context", "prod"]


def test_a_command_to_type_stands_on_one_line_and_nothing_is_said_twice(tmp_path: Path) -> None:
    kubectl = recorded(tmp_path, PHASES["waiting-for-a-secret"].story())
    lines = kubectl.plugin("status", "demo", COLUMNS="50")["out"].splitlines()
    assert any(line.endswith("kubectl lora explain CredentialsMissing") for line in lines)
    assert sum("Secret s3: create it" in line for line in lines) == 1


def test_status_shows_gates_with_their_intervals(tmp_path: Path) -> None:
    shown = recorded(tmp_path, PHASES["gates-failed"].story()).plugin("status", "demo")
    (line,) = [line for line in shown["out"].splitlines() if line.startswith("taskQuality")]
    assert "[+49.9%, +50.1%]" in line
    assert "Failed" in line


def test_status_tells_how_long_accelerators_were_held(tmp_path: Path) -> None:
    shown = recorded(tmp_path, serving_world()).plugin("status", "demo")
    (line,) = [line for line in shown["out"].splitlines() if line.startswith("quantize")]
    assert line.split()[:5] == ["quantize", "(default)", "Succeeded", "0s", "1m"]
    assert "accelerators held for 4m by this run" in shown["out"]


def test_what_was_reused_has_held_no_accelerator(tmp_path: Path) -> None:
    world = serving_world()
    world.recreate()
    world.settle()
    assert "accelerators held" not in recorded(tmp_path, world).plugin("status", "demo")["out"]


def test_status_is_json_for_programs(tmp_path: Path) -> None:
    shown = recorded(tmp_path, serving_world()).plugin("status", "demo", "-o", "json")
    story = json.loads(shown["out"])
    assert (story["phase"], story["ready"], story["verdict"]) == ("Serving", "True", "Passed")
    assert [s["name"] for s in story["stages"]][:2] == ["resolve", "merge"]


def test_a_report_shows_the_four_conditions_and_where_it_lies(tmp_path: Path) -> None:
    kubectl = recorded(tmp_path, serving_world())
    shown = kubectl.plugin("report", "demo")["out"]
    (row,) = [line for line in shown.splitlines() if line.startswith("Perplexity/task")]
    assert row.split()[1:] == ["20.09", "7.389", "7.389", "7.462890"]
    uri = json.loads(kubectl.plugin("report", "demo", "-o", "json")["out"])["reportUri"]
    assert f"report   {uri}" in shown


def test_a_report_in_a_bucket_is_fetched_with_the_users_credentials_and_opened(
    tmp_path: Path,
) -> None:
    world = World(changes=ITS_BUCKET)
    world.settle()
    kubectl = recorded(tmp_path, world)
    uri = json.loads(kubectl.plugin("report", "demo", "-o", "json")["out"])["reportUri"]
    refused = kubectl.plugin("report", "demo", "--open")
    assert refused["code"] == 1
    by_hand = f"aws s3 cp {uri} report.html --endpoint-url https://s3.internal:9000"
    assert by_hand in refused["err"]
    program(tmp_path / "aws", 'echo "$AWS_PROFILE $@" > "$5.asked"; echo page > "$5"')
    program(
        tmp_path / "browser",
        f'cp "${{1#file://}}" {tmp_path}; cp "${{1#file://}}.asked" {tmp_path}',
    )
    mine = {"BROWSER": f"{tmp_path}/browser %s", "AWS_PROFILE": "mine", "TMPDIR": str(tmp_path)}
    opened = kubectl.plugin("report", "demo", "--open", **mine)
    assert opened["code"] == 0, opened["err"]
    assert (tmp_path / "report.html").read_text() == "page\n"
    asked = (tmp_path / "report.html.asked").read_text()
    assert asked.startswith(f"mine s3 cp --only-show-errors {uri} ")
    assert asked.endswith("--endpoint-url https://s3.internal:9000\n")


def test_a_report_that_the_users_credentials_do_not_open_is_told_with_the_command(
    tmp_path: Path,
) -> None:
    kubectl = recorded(tmp_path, serving_world())
    program(tmp_path / "aws", 'echo "(403) Forbidden" >&2; exit 1')
    opened = kubectl.plugin("report", "demo", "--open")
    assert opened["code"] == 1
    assert "could not fetch it with your credentials: (403) Forbidden" in opened["err"]
    assert "aws s3 cp s3://" in opened["err"]


def test_a_report_that_is_not_there_yet_is_no_success(tmp_path: Path) -> None:
    shown = recorded(tmp_path, PHASES["running-merge"].story()).plugin("report", "demo")
    assert (shown["code"], shown["out"]) == (1, "")
    assert "no verdict yet" in shown["err"]


def test_releases_mark_what_serves(tmp_path: Path) -> None:
    world = serving_world()
    kubectl = recorded(tmp_path, world)
    (found,) = json.loads(kubectl.plugin("releases", "demo", "-o", "json")["out"])
    assert (found["id"], found["serves"]) == (world.status["serving"]["release"], True)
    last = kubectl.plugin("releases", "demo")["out"].splitlines()[-1]
    assert last.split()[:3] == ["*", "1", found["id"]]


def test_gc_tells_what_stays_and_why_and_removes_nothing(tmp_path: Path) -> None:
    world = serving_world()
    for size in (64, 32):
        world.edit(**{"quantization.gptq": {"groupSize": size}})
        world.settle()
    world.edit(**{"quantization.gptq": {"groupSize": 128}})
    world.settle()
    kubectl = recorded(tmp_path, world)
    newest, middle, oldest = (r["id"] for r in world.status["releases"])

    def stays(*options: str) -> dict[str, str]:
        shown = json.loads(kubectl.plugin("gc", "demo", "-o", "json", *options)["out"])
        return {release["id"]: release["stays"] for release in shown}

    assert all(stays().values()), "nothing goes where no number is given"
    assert stays("--keep", "1") == {newest: "newest", middle: "", oldest: "serves"}
    lines = kubectl.plugin("gc", "demo", "--dry-run", "--keep", "1")["out"].splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["newest", "goes", "serves"]


def test_a_log_is_kubectls_own_of_the_stages_job(tmp_path: Path) -> None:
    world = PHASES["running-quantize"].story()
    kubectl = recorded(tmp_path, world)
    kubectl.keep_job("any")
    shown = kubectl.plugin("logs", "demo", "-f", "--tail", "5", "-n", "team")
    assert (shown["code"], shown["out"]) == (0, "the log\n")
    job = world.stage("quantize")["job"]
    assert kubectl.asked[-1] == [
        "--namespace", "team", "logs", f"job/{job}", "--all-containers", "--tail=5", "--follow",
    ]  # fmt: skip


def test_the_log_of_what_serves_is_that_of_its_deployment(tmp_path: Path) -> None:
    world = serving_world()
    kubectl = recorded(tmp_path, world)
    assert kubectl.plugin("logs", "demo", "serving")["code"] == 0
    release = world.status["serving"]["release"]
    assert f"deployment/demo-{release}" in kubectl.asked[-1]


@pytest.mark.parametrize(
    ("phase", "stage", "why"),
    [
        ("running-merge", "benchmark", "stage benchmark has not run"),
        (
            "running-merge",
            "quantise",
            "no stage is called quantise; there are: resolve, merge, quan",
        ),
        ("running-merge", "serving", "no release of demo serves yet"),
        ("running-quantize", "merge", "is gone, and its log with it"),
        ("new", "", "no stage has run yet"),
    ],
)
def test_a_log_that_cannot_be_had_says_why(
    tmp_path: Path, phase: str, stage: str, why: str
) -> None:
    kubectl = recorded(tmp_path, PHASES[phase].story())
    shown = kubectl.plugin("logs", "demo", *filter(None, [stage]))
    assert (shown["code"], shown["out"]) == (1, "")
    assert why in shown["err"]


def test_a_reused_stage_has_no_log_and_says_so(tmp_path: Path) -> None:
    world = serving_world()
    world.recreate()
    world.settle()
    shown = recorded(tmp_path, world).plugin("logs", "demo", "merge")
    assert "the store had its result" in shown["err"]


def test_a_retry_sets_the_annotation_even_under_gitops(tmp_path: Path) -> None:
    labels = {"argocd.argoproj.io/instance": "models"}
    kubectl = recorded(tmp_path, PHASES["waiting-for-a-secret"].story(), labels=labels)
    assert kubectl.plugin("retry", "demo")["code"] == 0
    (words,) = kubectl.written
    (change,) = [json.loads(w.removeprefix("--patch=")) for w in words if w.startswith("--patch=")]
    assert list(change) == ["metadata"]
    assert epoch_seconds(change["metadata"]["annotations"][ANNOTATION_RETRY])
    assert "--field-manager=kubectl-lora" in words


def change_of(words: list[str]) -> Any:
    (patch,) = [w for w in words if w.startswith("--patch=")]
    return json.loads(patch.removeprefix("--patch="))


def test_a_rollback_pins_the_release_before_the_one_that_serves(tmp_path: Path) -> None:
    world = serving_world()
    first = world.status["serving"]["release"]
    world.edit(adapters=[{"uri": "s3://models/other"}])
    world.settle()
    assert world.status["serving"]["release"] != first
    kubectl = recorded(tmp_path, world)
    assert kubectl.plugin("rollback", "demo")["code"] == 0
    (words,) = kubectl.written
    change = change_of(words)
    assert change == {"spec": {"serving": {"pin": first}}}
    world.edit(**{"serving.pin": first})
    world.settle()
    assert world.status["serving"]["release"] == first
    assert "--undo" in kubectl.plugin("rollback", "--help")["out"]


def test_a_rollback_to_a_release_that_is_none_says_which_there_are(tmp_path: Path) -> None:
    world = serving_world()
    kubectl, serves = recorded(tmp_path, world), world.status["serving"]["release"]
    shown = kubectl.plugin("rollback", "demo", "0123abcd")
    assert (shown["code"], shown["err"]) == (
        1, f"there is no release 0123abcd; there are: {serves}\n",
    )  # fmt: skip
    assert "no earlier release" in kubectl.plugin("rollback", "demo")["err"]
    assert "no release is pinned" in kubectl.plugin("rollback", "demo", "--undo")["err"]
    assert kubectl.written == []


def test_an_approval_is_bound_to_the_artifact_and_keeps_the_others(tmp_path: Path) -> None:
    world = World(task_quality={128: 1.08})
    world.settle()
    digest = world.status["artifact"]["digest"]
    earlier = {"digest": "sha256:" + "0" * 64, "gate": "firstToken", "reason": "old"}
    world.edit(overrides=[earlier])
    world.settle()
    kubectl = recorded(tmp_path, world, resourceVersion="77")
    shown = kubectl.plugin("approve", "demo", "taskQuality", "--reason", "ticket 4711")
    assert shown["code"] == 0, shown["err"]
    (words,) = kubectl.written
    accepted = {"digest": digest, "gate": "taskQuality", "reason": "ticket 4711"}
    assert change_of(words) == {
        "metadata": {"resourceVersion": "77"}, "spec": {"overrides": [earlier, accepted]},
    }  # fmt: skip
    world.edit(overrides=[earlier, accepted])
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_only_what_failed_or_is_undecided_can_be_approved(tmp_path: Path) -> None:
    kubectl = recorded(tmp_path, serving_world())
    shown = kubectl.plugin("approve", "demo", "taskQuality", "--reason", "why not")
    assert (shown["code"], shown["err"]) == (
        1, "gate taskQuality is Passed: there is nothing to accept\n",
    )  # fmt: skip
    assert kubectl.plugin("approve", "demo", "noSuchGate", "--reason", "x")["code"] == 64
    assert kubectl.written == []


def test_suspend_and_resume_write_one_field(tmp_path: Path) -> None:
    kubectl = recorded(tmp_path, serving_world())
    assert kubectl.plugin("suspend", "demo")["out"] == "demo is suspended\n"
    (words,) = kubectl.written
    assert '--patch={"spec": {"suspend": true}}' in words
    assert kubectl.plugin("resume", "demo")["out"] == "demo is not suspended already\n"
    assert len(kubectl.written) == 1


def test_what_git_owns_is_not_written_but_told_as_a_patch(tmp_path: Path) -> None:
    labels = {"kustomize.toolkit.fluxcd.io/name": "models"}
    world = World(task_quality={64: 1.08})
    world.settle()
    first = world.status["serving"]["release"]
    world.edit(**{"quantization.gptq": {"bits": 4, "groupSize": 64}})
    world.settle()
    accepted = {"digest": world.status["artifact"]["digest"], "gate": "taskQuality", "reason": "x"}
    kubectl = recorded(tmp_path, world, labels=labels)
    for words, change in (
        (["suspend", "demo"], {"suspend": True}),
        (["rollback", "demo", first], {"serving": {"pin": first}}),
        (["approve", "demo", "taskQuality", "--reason", "x"], {"overrides": [accepted]}),
    ):
        shown = kubectl.plugin(*words)
        assert (shown["code"], kubectl.written) == (1, []), words
        assert "synced by Flux (models)" in shown["err"]
        assert yaml.safe_load(shown["out"])["spec"] == change


def test_a_reason_is_explained_and_an_unknown_one_is_not_guessed(tmp_path: Path) -> None:
    kubectl = recorded(tmp_path, serving_world())
    shown = kubectl.plugin("explain", "outofmemory")
    assert shown["out"].startswith("OutOfMemory\n")
    assert "How to fix" in shown["out"]
    assert kubectl.plugin("explain", "Bad")["code"] == 1
    assert kubectl.asked == []


@pytest.mark.parametrize("words", [["status"], ["status", "demo", "-o", "xml"], ["dance"]])
def test_wrong_words_are_a_usage_error(tmp_path: Path, words: list[str]) -> None:
    assert Plugin(tmp_path)(*words)["code"] == 64


def test_without_kubectl_one_line_says_so(tmp_path: Path) -> None:
    shown = Plugin(tmp_path)("status", "demo", PATH=str(tmp_path))
    assert (shown["code"], shown["err"]) == (1, "kubectl is not on the PATH; install it\n")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sta"], ["status"]),
        (["re"], ["report", "releases", "retry", "resume"]),
        (["status", "dem"], ["demo", "demon"]),
        (["status", ""], ["demo", "demon", "other"]),
        (["explain", "OutOf"], ["OutOfMemory"]),
        (["logs", "demo", "qua"], ["quantize"]),
        (["approve", "demo", "dec"], ["decodeSpeed"]),
        (["status", "demo", "-o", ""], ["table", "json"]),
    ],
)
def test_kubectl_completes_verbs_names_and_reasons(
    tmp_path: Path, words: list[str], completed: list[str]
) -> None:
    kubectl = recorded(tmp_path, serving_world())
    shown = kubectl.plugin(*words, module="lora_cli.completion")
    assert shown["out"].split() == [*completed, ":4"]
