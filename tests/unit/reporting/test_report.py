"""The report says what was measured and decided, and nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from builders import measurements, spec_document
from lora_api.gates import Measurements, judge
from lora_api.gatespec import Gates
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.report import Report
from lora_jobs.errors import Refused
from lora_jobs.reporting.charts import Chart, charts
from lora_jobs.reporting.compare import comparison_html, spec_differences
from lora_jobs.reporting.document import report_document
from lora_jobs.reporting.quality import MAX_POINTS, attribution, paired_differences, thinned
from lora_jobs.reporting.render import read_report, render, to_html


def document(rows: Measurements | None = None, **changes: Any) -> Report:
    quality, speed = measurements()
    rows = quality | speed if rows is None else rows
    call = StageCall(
        stage=Stage.BENCHMARK, parameters={"accelerator": "None", "runtime": "Transformers"}
    )
    result = StageResult(stage=Stage.BENCHMARK, input_hash=call.input_hash, notes={"cpu": "x"})
    known: dict[str, Any] = {
        "name": "team/<demo>",
        "run_id": "0123abcd",
        "judgement": judge(Gates(), rows),
        "measurements": rows,
        "done": [(call, result)],
        "candidate": "default",
        "sources": {"base": {"uri": "s3://m/base", "digest": "sha256:1"}},
        "spec": spec_document(),
    }
    return report_document(**(known | changes))


def test_a_stage_tells_how_long_it_held_accelerators() -> None:
    call = StageCall(stage=Stage.QUANTIZE, candidate="default")
    result = StageResult(
        stage=Stage.QUANTIZE, input_hash=call.input_hash, seconds=70, accelerator_seconds=120
    )
    report = document(done=[(call, result)])
    assert report.stages[0].accelerator_seconds == 120
    assert "70 s, accelerators held for 120 s" in page_of(report).text


class Page(HTMLParser):
    """What a page asks for, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.asks_for: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.asks_for += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(report: Report) -> Page:
    """The page without its plots, which take a while to draw."""
    return Page(to_html(report, draw=lambda _: []))


def test_the_page_shows_verdict_every_gate_and_every_row() -> None:
    report = document()
    page = page_of(report)
    assert "Passed" in page.text
    for gate in report.gates:
        assert gate.name in page.text
        assert gate.limit in page.text
    for row in report.table:
        assert row.label in page.text
        assert all(cell in page.text for cell in (*row.cells, *row.against_base))


def test_the_page_is_one_file_that_asks_for_nothing(drawn: list[Chart]) -> None:
    html = to_html(everything(), draw=lambda _: drawn)
    assert all(asked.startswith("#") for asked in Page(html).asks_for)
    assert not re.search(r"url\((?!#)|@import|<script|<link", html)


def test_what_users_write_is_text_and_never_markup() -> None:
    assert "<demo>" not in to_html(document(), draw=lambda _: [])


def test_a_failed_gate_is_named_in_the_first_sentence() -> None:
    quality, speed = measurements(task_ratio=1.34)
    report = document(quality | speed)
    assert report.verdict == "Failed"
    assert "taskQuality is +34.0% [+33.9%, +34.1%], its limit <= +5%" in report.sentence


def test_a_missing_number_is_said_and_shown_as_a_dash() -> None:
    quality, _ = measurements()
    report = document(quality, done=[])
    assert report.verdict == "Error"
    assert "was not measured" in report.sentence
    ttft = next(row for row in report.table if row.label.startswith("TTFT"))
    assert set(ttft.cells) == {"-"}


def test_cpu_numbers_say_cpu() -> None:
    assert "CPU" in page_of(document()).text


def test_the_attribution_adds_up() -> None:
    quality, _ = measurements()
    parts, line = attribution(quality)
    assert line == (
        "the adapter gains +1.000 [+1.000, +1.000] nats per token, "
        "merging costs +0.0000 [-0.0010, +0.0010], 4 bits cost +0.0100 [+0.0090, +0.0109], "
        "99.0% [98.9%, 99.1%] of the gain is kept."
    )
    by_name = {part.name: float(part.value) for part in parts}
    assert list(by_name) == ["adapterGain", "mergeLoss", "quantizationLoss", "gainRetained"]
    assert attribution({}) == ([], "")


def test_rendering_writes_both_files(tmp_path: Path) -> None:
    as_json, as_html = render(document(), tmp_path / "report")
    assert as_json.read_text().startswith("{")
    assert as_html.read_text().startswith("<!doctype html>")


def samples() -> dict[str, Any]:
    """A record of two blocks, as the benchmark leaves it."""
    request: dict[str, Any] = {"sentMicroseconds": 0, "promptTokens": 64, "outputTokens": 3}
    request["arrivalsMicroseconds"] = [50_000, 60_000, 70_000]
    process = {"argv": ["serve", "<m>"], "invalid": {}, "loops": {"1": [request], "4": [request]}}
    return {
        "workload": {
            "runtime": "Transformers", "accelerator": "None", "inputTokens": 64,
            "outputTokens": 32, "concurrency": [1, 4], "precision": "5%",
        },
        "environment": {"device": "CPU", "cpu": "A Processor", "loadBefore": "1 2 3"},
        "prompts": "sha256:77",
        "notApplicable": {"dynamic": "the engine refuses it"},
        "processes": [
            process | {"condition": "base", "block": 0},
            process | {"condition": "quantized", "block": 1, "invalid": {"4": "in bursts"}},
        ],
        "expectations": {"prompts": [{}, {}]},
    }  # fmt: skip


def test_the_page_says_how_and_on_what_speed_was_measured() -> None:
    quality, speed = measurements()
    alone = {"TimeToFirstToken/p50@4:quantized/base": {"value": "0.9", "blocks": "1"}}
    page = page_of(document(quality | speed | alone, samples=samples()))
    for said in (
        "A Processor", "sha256:77", "2 engine processes in 2 blocks of random order",
        "+50.0%", "[+49.9%, +50.1%]",
        "none: one block", "dynamic was not measured: the engine refuses it",
        "quantized at concurrency 4 was not measured: in bursts", "serve <m>", "2 answers",
    ):  # fmt: skip
        assert said in page.text, said


def test_the_page_shows_requests_that_came_at_random_or_why_there_are_none() -> None:
    done: dict[str, Any] = {"sentMicroseconds": 500_000, "promptTokens": 4, "outputTokens": 3}
    done["arrivalsMicroseconds"] = [1_000_000, 1_010_000, 1_020_000]
    recorded = {
        "ratePerSecond": "2.000", "concurrency": 4, "arrivalsMicroseconds": [500_000] * 3,
        "processes": [
            {"condition": "merged", "invalid": "in bursts", "served": []},
            {"condition": "base", "invalid": "", "served": [done, done, None]},
        ],
    }  # fmt: skip
    text = page_of(document(samples=samples() | {"openLoop": recorded})).text
    for said in ("70 % of what base", "500.0", "520.0", "1 cut off", "67 %",
                 "merged in the open loop was not measured: in bursts"):  # fmt: skip
        assert said in text, said
    skipped = samples() | {"openLoop": {"skipped": "too short"}}
    assert "the open loop was not measured: too short" in page_of(document(samples=skipped)).text


def test_claims_about_merging_are_told_with_what_is_missing_to_decide_them() -> None:
    report = document(samples=samples())
    assert report.speed is not None
    assert [(c.name, c.verdict, c.blocks) for c in report.speed.claims] == [
        ("mergedIsAsFast", "Undecided", 0), ("unmergedIsSlower", "Undecided", 0),
    ]  # fmt: skip
    text = page_of(report).text
    assert "in 0 of the 6 blocks that it takes" in text
    assert "not applicable: the engine refuses it" in text


def test_each_ratio_stands_beside_its_interval() -> None:
    report = document()
    speed = next(row for row in report.table if row.label.startswith("Throughput"))
    assert (speed.change, speed.interval) == ("+50.0%", "[+49.9%, +50.1%]")
    assert speed.against_base == ["", "", "+0.0% (no interval)", "+50.0% [+49.9%, +50.1%]"]
    page = page_of(report)
    for interval in (speed.interval, *(g.interval for g in report.gates)):
        assert interval in page.text


def test_that_recipes_were_chosen_on_one_half_is_said() -> None:
    assert "one half of the evaluation documents" not in page_of(document()).text
    candidates = [{"name": "g32", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 32}}]
    several = document(spec=spec_document(**{"quantization.candidates": candidates}))
    assert "one half of the evaluation documents" in page_of(several).text


def test_an_engine_that_queues_is_said_where_requests_wait() -> None:
    assert "one request at a time" in page_of(document(samples=samples())).text
    alone = samples()
    alone["workload"]["concurrency"] = [1]
    assert "one request at a time" not in page_of(document(samples=alone)).text


def test_every_candidate_that_was_tried_is_shown_with_the_judged_one_marked() -> None:
    done = []
    for name, perplexity in (("default", "9.1"), ("g32", "7.4")):
        rows = {"Perplexity/task": {"quantized": perplexity}}
        for stage, more in (
            (Stage.QUANTIZE, {"digest": f"sha256:{name}"}),
            (Stage.EVALUATE, {"measurements": rows}),
        ):
            call = StageCall(stage=stage, parameters={"of": name}, candidate=name)
            done.append((call, StageResult(stage=stage, input_hash=call.input_hash, **more)))
    report = document(done=done, candidate="g32")
    assert [(c.name, c.chosen) for c in report.candidates] == [
        ("default", False), ("g32", True),
    ]  # fmt: skip
    page = page_of(report)
    assert "g32 (judged)" in page.text
    assert all(text in page.text for text in ("9.1", "7.4", "sha256:default"))


def scores() -> dict[str, Any]:
    """What evaluate kept: two windows of document 0, one of document 1."""
    nlls = {"merged": ["1.0", "2.0", "8.0"], "quantized": ["1.5", "2.5", "7.0"]}
    shape = {"set": "task", "documents": [0, 0, 1], "tokens": [2, 2, 8]}
    return {"scores": [shape | {"condition": c, "nlls": n} for c, n in nlls.items()]}


def everything() -> Report:
    """A report that has every plot."""
    quality, speed = measurements()
    rows = quality | speed
    rows |= {"OutputTokensPerSecond@4": {"base": "300", "quantized": "500"}}
    rows |= {"TimeToFirstToken/p50@1:base/base": {"value": "1.01", "blocks": "1"}}
    return document(rows, samples=samples(), scores=scores(), provenance={"python": "3.11"})


NO_SPEED: dict[str, Any] = {"speed": None, "measurements": {}, "candidates": []}


@pytest.fixture(scope="module")
def drawn() -> list[Chart]:
    return charts(everything())


def test_differences_are_by_document_and_their_mean_is_over_all_tokens() -> None:
    quality, _ = measurements()
    (pair,) = paired_differences(scores(), quality)
    assert (pair.condition, pair.against, pair.documents) == ("quantized", "merged", 2)
    assert pair.nats_per_token == [-0.125, 0.25]
    assert pair.mean == 0.0
    assert pair.lower is not None
    assert pair.upper is not None
    assert paired_differences(None, quality) == []


def test_thinning_keeps_the_extremes() -> None:
    kept = thinned([float(i) for i in range(10 * MAX_POINTS)])
    assert len(kept) == MAX_POINTS
    assert (kept[0], kept[-1]) == (0.0, 10 * MAX_POINTS - 1)
    assert thinned([1.0, 2.0]) == [1.0, 2.0]


def test_every_plot_is_drawn_where_it_has_data_and_left_out_where_not(drawn: list[Chart]) -> None:
    assert [chart.title for chart in drawn] == [
        "Document by document", "Size against quality",
        "Time to first token and per output token", "Throughput against concurrency",
        "Speed and its noise floor",
    ]  # fmt: skip
    quality, _ = measurements()
    assert [chart.title for chart in charts(document(quality, done=[]))] == ["Size against quality"]


def test_plots_take_their_colours_from_the_page_and_draw_the_same_each_time(
    drawn: list[Chart],
) -> None:
    for chart in drawn:
        assert not re.search(r"#0[0-9a-f]{5}\b", chart.svg), "a sentinel colour was left"
        assert "var(--ink)" in chart.svg
        assert "<text" in chart.svg
    assert drawn[:1] == charts(everything().model_copy(update=NO_SPEED))[:1]
    names = re.findall(r' id="([^"]+)"', "".join(chart.svg for chart in drawn))
    assert len(names) == len(set(names)), "names are unique in the page"


def test_the_noise_floor_says_base_against_itself() -> None:
    assert "base against itself (noise floor)" in page_of(everything()).text


def test_a_report_is_drawn_again_from_its_json_alone(tmp_path: Path) -> None:
    as_json, as_html = render(document(), tmp_path / "one")
    again, page = render(read_report(as_json), tmp_path / "two")
    assert again.read_bytes() == as_json.read_bytes()
    assert page.read_bytes() == as_html.read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is no report"), ("[]", "is no report"), ('{"schemaVersion": 1}', "has schema 1"),
     ('{"schemaVersion": 2}', "is no report")],
)  # fmt: skip
def test_what_is_no_report_of_this_schema_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(Refused, match=said):
        read_report(file)


def test_a_newer_report_with_more_fields_is_read(tmp_path: Path) -> None:
    as_json, _ = render(document(), tmp_path)
    as_json.write_text(json.dumps(json.loads(as_json.read_text()) | {"later": 1}))
    assert read_report(as_json) == document()


def test_two_runs_stand_side_by_side_with_what_was_asked_otherwise() -> None:
    quality, speed = measurements(task_ratio=1.34)
    one = document(run_id="one11111")
    other = document(
        quality | speed, run_id="two22222", spec=spec_document(**{"evaluation.contextLength": 512})
    )
    page = Page(comparison_html(one, other))
    for said in ("one11111", "two22222", "Passed", "Failed", "+34.0%", "evaluation.contextLength"):
        assert said in page.text, said
    assert spec_differences(one, other) == [("evaluation.contextLength", "-", "512")]
    assert "spec and sources are the same" in Page(comparison_html(one, one)).text
