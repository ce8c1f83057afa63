"""The report says what was measured and decided, and nothing else."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from builders import measurements, spec_document
from lora_api.gates import Measurements, judge
from lora_api.gatespec import Gates
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_jobs.reporting.document import attribution, report_document
from lora_jobs.reporting.render import render, to_html


def document(rows: Measurements | None = None, **changes: Any) -> dict[str, Any]:
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


def test_the_page_shows_verdict_every_gate_and_every_row() -> None:
    report = document()
    page = Page(to_html(report))
    assert "Passed" in page.text
    for gate in report["gates"]:
        assert gate["name"] in page.text
        assert gate["limit"] in page.text
    for row in report["table"]:
        assert row["label"] in page.text
        assert all(cell in page.text for cell in row["cells"])


def test_the_page_is_one_file_that_asks_for_nothing() -> None:
    html = to_html(document())
    assert Page(html).asks_for == []
    assert not re.search(r"url\(|@import|<script", html)


def test_what_users_write_is_text_and_never_markup() -> None:
    assert "<demo>" not in to_html(document())


def test_a_failed_gate_is_named_in_the_first_sentence() -> None:
    quality, speed = measurements(task_ratio=1.34)
    report = document(quality | speed)
    assert report["verdict"] == "Failed"
    assert "taskQuality is +34.0% [+33.9%, +34.1%], its limit <= +5%" in report["sentence"]


def test_a_missing_number_is_said_and_shown_as_a_dash() -> None:
    quality, _ = measurements()
    report = document(quality, done=[])
    assert report["verdict"] == "Error"
    assert "was not measured" in report["sentence"]
    ttft = next(row for row in report["table"] if row["label"].startswith("TTFT"))
    assert set(ttft["cells"]) == {"-"}


def test_cpu_numbers_say_cpu() -> None:
    assert "CPU" in Page(to_html(document())).text


def test_the_attribution_adds_up() -> None:
    quality, _ = measurements()
    assert attribution(quality) == (
        "the adapter gains +1.000 [+1.000, +1.000] nats per token, "
        "merging costs +0.0000 [-0.0010, +0.0010], 4 bits cost +0.0100 [+0.0090, +0.0109], "
        "99.0% [98.9%, 99.1%] of the gain is kept."
    )
    assert attribution({}) == ""


def test_rendering_writes_both_files(tmp_path: Path) -> None:
    as_json, as_html = render(document(), tmp_path / "report")
    assert as_json.read_text().startswith("{")
    assert as_html.read_text().startswith("<!doctype html>")


def samples() -> dict[str, Any]:
    """A record of two blocks, as the benchmark leaves it."""
    process = {"argv": ["serve", "<m>"], "invalid": {}}
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
    page = Page(to_html(document(quality | speed | alone, samples=samples())))
    for said in (
        "A Processor", "sha256:77", "2 engine processes in 2 blocks", "+50.0%", "[+49.9%, +50.1%]",
        "none: one block", "dynamic was not measured: the engine refuses it",
        "quantized at concurrency 4 was not measured: in bursts", "serve <m>", "2 answers",
    ):  # fmt: skip
        assert said in page.text, said


def test_each_ratio_stands_beside_its_interval() -> None:
    report = document()
    speed = next(row for row in report["table"] if row["label"].startswith("Throughput"))
    assert (speed["change"], speed["interval"]) == ("+50.0%", "[+49.9%, +50.1%]")
    page = Page(to_html(report))
    for shown in (speed, *(g for g in report["gates"] if g["interval"])):
        assert shown["interval"] in page.text


def test_that_recipes_were_chosen_on_one_half_is_said() -> None:
    assert "one half of the evaluation documents" not in Page(to_html(document())).text
    candidates = [{"name": "g32", "method": "GPTQ", "gptq": {"groupSize": 32}}]
    several = document(spec=spec_document(**{"quantization.candidates": candidates}))
    assert "one half of the evaluation documents" in Page(to_html(several)).text


def test_an_engine_that_queues_is_said_where_requests_wait() -> None:
    assert "one request at a time" in Page(to_html(document(samples=samples()))).text
    alone = samples()
    alone["workload"]["concurrency"] = [1]
    assert "one request at a time" not in Page(to_html(document(samples=alone))).text


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
    assert [(c["name"], c["chosen"]) for c in report["candidates"]] == [
        ("default", False), ("g32", True),
    ]  # fmt: skip
    page = Page(to_html(report))
    assert "g32 (judged)" in page.text
    assert all(text in page.text for text in ("9.1", "7.4", "sha256:default"))
