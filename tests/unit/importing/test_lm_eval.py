"""Items of lm-evaluation-harness, as version 0.4.13 writes them, compared one by one."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lora_api.estimates import comparison
from lora_api.gates import BASE, MERGED, QUANTIZED
from lora_jobs.cli import app
from lora_jobs.errors import Refused
from lora_jobs.importing.lmeval import read_scores, rows_of
from lora_jobs.intervals.proportions import Disagreement

DATE = "2026-11-24T02-29-31.080537"


def item(number: int, metrics: dict[str, Any], picked: str = "none", **changes: Any) -> str:
    """A line of `--log_samples`, without the bulk that is not read."""
    return json.dumps({
        "doc_id": number, "doc": {"q": f"question {number}"}, "target": "1", "filter": picked,
        "metrics": list(metrics), "doc_hash": f"d{number}", "prompt_hash": f"p{number}",
        "target_hash": "t", **metrics, **changes,
    })  # fmt: skip


def written(folder: Path, lines: list[str], task: str = "arc_easy") -> Path:
    file = folder / "__models__x" / f"samples_{task}_{DATE}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + "\n" for line in lines))
    return folder


def answered(folder: Path, right: int, of: int = 200) -> Path:
    return written(folder, [item(n, {"acc": float(n < right)}) for n in range(of)])


def test_conditions_are_compared_item_by_item_with_an_interval(tmp_path: Path) -> None:
    merged, quantized = answered(tmp_path / "m", 120), answered(tmp_path / "q", 116)
    rows = rows_of({MERGED: read_scores(merged), QUANTIZED: read_scores(quantized)})
    assert rows["LmEval/arc_easy/acc"] == {MERGED: "0.600000", QUANTIZED: "0.580000"}
    row = rows[comparison("LmEval/arc_easy/acc", QUANTIZED, MERGED)]
    low, high = Disagreement(gained=0, lost=4, records=200).bounds
    assert (float(row["lower"]), float(row["upper"])) == pytest.approx((low, high), abs=2e-6)
    assert row["documents"] == "200"


def test_scores_between_0_and_1_have_the_interval_of_a_paired_mean(tmp_path: Path) -> None:
    scores = [0.1 * (n % 7) for n in range(60)]
    one = written(tmp_path / "m", [item(n, {"f1": s}) for n, s in enumerate(scores)])
    other = written(tmp_path / "q", [item(n, {"f1": s + 0.05}) for n, s in enumerate(scores)])
    rows = rows_of({MERGED: read_scores(one), QUANTIZED: read_scores(other)})
    row = rows[comparison("LmEval/arc_easy/f1", QUANTIZED, MERGED)]
    assert float(row["value"]) == pytest.approx(0.05, abs=1e-6)


def test_each_filter_is_a_metric_and_what_is_no_score_is_left_out(tmp_path: Path) -> None:
    lines = [
        line
        for n in range(4)
        for line in (
            item(n, {"exact_match": 1.0, "perplexity": 17.5, "words": [1, 2]}, "strict"),
            item(n, {"exact_match": 0.0}, "flexible"),
        )
    ]
    found = read_scores(written(tmp_path, lines, "gsm8k_cot"))
    assert {name: set(scores.values()) for name, scores in found.items()} == {
        "LmEval/gsm8k_cot/exact_match (strict)": {1.0},
        "LmEval/gsm8k_cot/exact_match (flexible)": {0.0},
    }


@pytest.mark.parametrize("changed", ["doc_hash", "prompt_hash", "target_hash"])
def test_items_that_were_asked_otherwise_are_refused(tmp_path: Path, changed: str) -> None:
    one = written(tmp_path / "m", [item(n, {"acc": 1.0}) for n in range(3)])
    lines = [item(n, {"acc": 1.0}, **({changed: "other"} if n == 1 else {})) for n in range(3)]
    scores = {MERGED: read_scores(one), QUANTIZED: read_scores(written(tmp_path / "q", lines))}
    with pytest.raises(Refused, match=r"arc_easy/acc: quantized and merged answered unlike items"):
        rows_of(scores)


@pytest.mark.parametrize(
    ("lines", "why"),
    [(["no json"], "is no item of lm_eval"), (["{}"], "is no item of lm_eval"),
     (["[1]"], "is no item of lm_eval")],
)  # fmt: skip
def test_what_is_not_of_lm_eval_is_refused(tmp_path: Path, lines: list[str], why: str) -> None:
    with pytest.raises(Refused, match=why):
        read_scores(written(tmp_path, lines))


def test_an_empty_folder_and_two_runs_in_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--log_samples"):
        read_scores(tmp_path)
    folder = answered(tmp_path, 3, 5)
    again = tmp_path / "again" / f"samples_arc_easy_{DATE.replace('31', '59')}.jsonl"
    again.parent.mkdir()
    again.write_text(item(1, {"acc": 1.0}))
    with pytest.raises(Refused, match="two results of task arc_easy"):
        read_scores(folder)


def test_the_command_writes_what_the_report_shows_beside_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["import-lm-eval", "--output", str(out)]
    for condition, right in ((BASE, 80), (MERGED, 120), (QUANTIZED, 118)):
        arguments += [f"--{condition}", str(answered(tmp_path / condition, right))]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "arc_easy/acc" in told.output
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    page = (out / "report.html").read_text()
    assert "lm-eval arc_easy/acc" in page
    assert "+19.0%" in page
    assert CliRunner().invoke(app, ["import-lm-eval", "--output", str(out)]).exit_code == 2
