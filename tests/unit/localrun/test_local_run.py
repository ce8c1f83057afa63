"""`lora-jobs run`: the whole line as child processes, with fake stages."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from localruns import LocalSetting
from signingkeys import KeyPair, provenance

G32 = {"name": "g32", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 32}}


@pytest.fixture
def setting(tmp_path: Path) -> LocalSetting:
    return LocalSetting(tmp_path)


def test_a_good_model_is_published_and_a_second_run_repeats_no_stage(
    setting: LocalSetting,
) -> None:
    first = setting.run()
    assert first.returncode == 0, first.stderr
    assert setting.ran() == [
        "merge", "quantize default", "evaluate default", "benchmark default",
    ]  # fmt: skip
    assert "Verdict: Passed (5/5 gates)" in first.stdout
    assert "Report: file://" in first.stdout
    releases = list((setting.folder / "store/team/releases/demo").glob("*.json"))
    assert len(releases) == 1
    published = releases[0].read_bytes()

    second = setting.run()
    assert second.returncode == 0, second.stderr
    assert setting.ran() == []
    assert "No stage ran again" in second.stdout
    assert second.stdout.count("reused, nothing ran") == 4
    assert releases[0].read_bytes() == published


def test_the_table_shows_four_conditions_and_a_dash_where_nothing_was_measured(
    setting: LocalSetting,
) -> None:
    shown = setting.run().stdout
    row = next(line for line in shown.splitlines() if "TTFT" in line)
    assert [cell.strip() for cell in row.split("│")[2:6]] == ["50.0", "-", "50.0", "51.0"]
    assert "Perplexity, task" in shown
    assert "Peak memory" in shown


def test_a_failed_gate_ends_with_1_and_publishes_nothing(setting: LocalSetting) -> None:
    ended = setting.run(FAKE_STAGES_WORSE="1.3")
    assert ended.returncode == 1
    assert "Verdict: Failed" in ended.stdout
    assert "Report: file://" in ended.stdout, "also a failed verdict has a report"
    assert not (setting.folder / "store/team/releases").exists()
    assert "benchmark default" not in setting.ran(), "speed of a bad model is not measured"


def test_the_next_candidate_is_tried_when_quality_fails(setting: LocalSetting) -> None:
    spec = setting.spec
    spec["quantization"]["candidates"] = [G32]
    setting.write(spec)
    ended = setting.run(FAKE_STAGES_WORSE="1.3")
    assert ended.returncode == 0, ended.stderr
    assert setting.ran() == [
        "merge", "quantize default", "evaluate default",
        "quantize g32", "evaluate g32", "benchmark g32",
    ]  # fmt: skip
    assert "candidate g32" in ended.stdout


def test_stricter_gates_judge_again_and_measure_nothing(setting: LocalSetting) -> None:
    setting.run()
    setting.ran()
    spec = setting.spec
    spec["gates"] = {"taskQuality": {"maxIncrease": "0.1%"}}
    setting.write(spec)
    assert setting.run().returncode == 1
    assert setting.ran() == []


def test_a_crash_says_what_the_stage_said_last(setting: LocalSetting) -> None:
    ended = setting.run(FAKE_STAGES_CRASH="quantize")
    assert ended.returncode == 1
    assert "quantize ended with exit code 7" in ended.stderr
    assert "out of luck" in ended.stderr
    assert setting.run().returncode == 0
    assert setting.ran().count("merge") == 1, "what was done before the crash is kept"


def test_a_refusal_has_its_exit_code_and_one_line(setting: LocalSetting) -> None:
    ended = setting.run(FAKE_STAGES_REFUSE="quantize")
    assert ended.returncode == 2
    assert ended.stderr.strip() == ("InvalidInput: the test wants it refused; want something else")


def test_a_missing_adapter_waits_with_3(setting: LocalSetting) -> None:
    for file in (setting.folder / "sources/adapter").iterdir():
        file.unlink()
    ended = setting.run()
    assert ended.returncode == 3
    assert ended.stderr.startswith("SourceNotFound: there is nothing at file://")
    assert setting.ran() == []


def test_the_store_option_and_relative_paths_need_no_absolute_path_in_the_file(
    setting: LocalSetting,
) -> None:
    spec: dict[str, Any] = setting.spec
    spec["baseModel"]["uri"] = "file://./sources/base"
    spec["quantization"]["calibration"]["sources"][0]["uri"] = "file://./sources/calibration.jsonl"
    del spec["artifact"]
    setting.write(spec)
    ended = setting.run("--store", str(setting.folder / "elsewhere"))
    assert ended.returncode == 0, ended.stderr
    assert (setting.folder / "elsewhere/team/actions/merge").is_dir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec.bases": 1}, "spec.bases: unknown field"),
        ({"spec.quantization.gptq": {"groupSize": 100}}, "groupSize one of 32, 64, 128"),
        ({"kind": "Deployment"}, "0 objects of kind LoRADeployment"),
        ({"apiVersion": "v1"}, "apiVersion is v1, not lora-operator.dev/v1alpha1"),
        ({"metadata": {}}, "metadata.name is empty"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_is_not_right_is_refused_by_its_path(
    setting: LocalSetting, change: dict[str, Any], words: str
) -> None:
    spec, more = setting.spec, {}
    for path, value in change.items():
        *parents, last = path.split(".")
        if not parents:
            more[last] = value
            continue
        node = spec
        for key in parents[1:]:
            node = node[key]
        node[last] = value
    setting.write(spec, **more)
    ended = setting.run()
    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_profile_of_the_charts_values_gives_the_store_and_its_floors(
    setting: LocalSetting,
) -> None:
    spec = setting.spec
    artifact, values = spec.pop("artifact"), setting.folder / "values.yaml"
    setting.write(spec | {"profile": "team"})
    floors = {"taskQuality": {"maxIncrease": "0.1%"}}
    values.write_text(
        yaml.safe_dump({"profiles": {"team": {"artifact": artifact, "gates": floors}}})
    )
    ended = setting.run("--profiles", str(values))
    assert ended.returncode == 1, ended.stderr
    assert "Verdict: Failed" in ended.stdout


def test_a_local_run_signs_with_the_key_of_a_folder_and_asks_for_it_before_any_stage(
    setting: LocalSetting,
) -> None:
    pair = KeyPair()
    setting.write(setting.spec | {"provenance": provenance(pair)})
    ended = setting.run()
    assert ended.returncode == 3
    assert "CredentialsMissing: there is no key key.pem to sign with" in ended.stderr
    assert setting.ran() == []
    ended = setting.run(LORA_SIGNING_DIR=pair.mounted(setting.folder / "keys"))
    assert ended.returncode == 0, ended.stderr
    assert f"signed by key {pair.fingerprint[:16]}" in ended.stdout
    (envelope,) = (setting.folder / "store").rglob(f"{pair.fingerprint}.json")
    assert "provenance" in envelope.parts


@pytest.mark.parametrize(
    ("profiles", "told"),
    [
        (None, "spec.profile names team; give the chart's values that have it with --profiles"),
        ({"other": {}}, "spec.profile names team; give the chart's values that have it"),
        ({"team": {"replicas": 2}}, "profiles.team.replicas: Extra inputs are not permitted"),
    ],
)
def test_a_profile_that_is_not_there_or_not_readable_is_refused(
    setting: LocalSetting, profiles: dict[str, Any] | None, told: str
) -> None:
    setting.write(setting.spec | {"profile": "team"})
    values = setting.folder / "values.yaml"
    values.write_text(yaml.safe_dump({"profiles": profiles}))
    ended = setting.run(*(("--profiles", str(values)) if profiles else ()))
    assert ended.returncode == 2
    assert told in ended.stderr
    assert setting.ran() == []
