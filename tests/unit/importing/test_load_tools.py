"""Files of other load tools, as their code writes them, become the rows that gates read."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lora_api.gates import Verdict, judge
from lora_api.gatespec import Gates
from lora_jobs.cli import app
from lora_jobs.errors import Refused
from lora_jobs.importing.rows import read_run, rows_of

Json = dict[str, Any]


def vllm(speed: float = 1.0, **changes: Any) -> Json:
    """`vllm bench serve --save-result --max-concurrency 4`, without detailed fields."""
    return {
        "date": "20261123-120000", "endpoint_type": "openai", "backend": "openai", "label": None,
        "model_id": "model", "tokenizer_id": "model", "num_prompts": 20, "request_rate": "inf",
        "burstiness": 1.0, "max_concurrency": 4, "duration": 10.0 / speed, "completed": 20,
        "failed": 0, "total_input_tokens": 1280, "total_output_tokens": 640,
        "request_throughput": 2.0 * speed, "request_goodput": None,
        "output_throughput": 64.0 * speed, "total_token_throughput": 192.0 * speed,
        "mean_ttft_ms": 60.0, "median_ttft_ms": 50.0, "std_ttft_ms": 5.0, "p99_ttft_ms": 90.0,
        "mean_tpot_ms": 12.0, "median_tpot_ms": 11.0 / speed, "std_tpot_ms": 1.0,
        "p99_tpot_ms": 20.0, "mean_itl_ms": 12.0, "median_itl_ms": 11.5,
    } | changes  # fmt: skip


def aiperf(**changes: Any) -> Json:
    """`profile_export_aiperf.json`, schema 1.4, of a streaming run."""

    def record(unit: str, middle: float) -> Json:
        return {"unit": unit, "avg": middle * 1.1, "p1": middle / 2, "p50": middle,
                "p99": middle * 2, "min": middle / 2, "max": middle * 2, "std": 1.0,
                "count": 20, "sum": middle * 22}  # fmt: skip

    return {
        "schema_version": "1.4", "aiperf_version": "0.13.0", "benchmark_id": "b",
        "request_throughput": {"unit": "requests/sec", "avg": 2.0},
        "request_latency": record("ms", 390.0), "request_count": {"unit": "requests", "avg": 20.0},
        "time_to_first_token": record("ms", 50.0), "inter_token_latency": record("ms", 11.0),
        "output_token_throughput": {"unit": "tokens/sec", "avg": 64.0},
        "output_sequence_length": {**record("tokens", 32.0), "avg": 32.0},
        "input_sequence_length": {**record("tokens", 64.0), "avg": 64.0},
        "input_config": {"phases": [
            {"name": "warmup", "type": "concurrency", "concurrency": 1},
            {"name": "profiling", "type": "concurrency", "concurrency": 4, "requests": 20},
        ]},
        "was_cancelled": False, "is_complete": True,
    } | changes  # fmt: skip


def guidellm(strategy: Json | None = None, benchmarks: int = 1, errored: int = 0) -> Json:
    """`benchmarks.json` of `guidellm benchmark --profile concurrent --rate 4`."""

    def summary(middle: float) -> Json:
        each = {"mean": middle, "median": middle, "mode": middle, "variance": 0.0, "std_dev": 0.0,
                "min": middle, "max": middle, "count": 20, "total_sum": middle * 20,
                "percentiles": {"p50": middle, "p99": middle}}  # fmt: skip
        return {"successful": each, "incomplete": each, "errored": each, "total": each}

    one: Json = {
        "type_": "generative_benchmark",
        "config": {"strategy": strategy or {"type_": "concurrent", "streams": 4}},
        "metrics": {
            "request_totals": {"successful": 20, "incomplete": 3, "errored": errored, "total": 23},
            "prompt_token_count": summary(64.0), "output_token_count": summary(32.0),
            "time_to_first_token_ms": summary(50.0), "inter_token_latency_ms": summary(11.0),
            "time_per_output_token_ms": summary(12.2), "output_tokens_per_second": summary(64.0),
        },
    }  # fmt: skip
    metadata = {"version": 1, "guidellm_version": "0.8.1"}
    return {"metadata": metadata, "config": {}, "benchmarks": [one] * benchmarks}


def written(folder: Path, document: Any, name: str = "run.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    ("document", "tool"),
    [(vllm(), "vllm bench serve"), (aiperf(), "aiperf 0.13.0"), (guidellm(), "guidellm 0.8.1")],
    ids=["vllm", "aiperf", "guidellm"],
)
def test_every_tool_s_numbers_are_taken_for_what_they_are(
    tmp_path: Path, document: Json, tool: str
) -> None:
    run = read_run(written(tmp_path, document))
    assert run.tool == tool
    assert (run.concurrency, run.requests, run.failed) == (4, 20, 0)
    assert (run.input_tokens, run.output_tokens) == (64, 32)
    # Not GuideLLM's 12.2, which counts the first token in; not a mean.
    assert (run.time_to_first_token_ms, run.time_per_output_token_ms) == (50, 11)
    assert run.output_tokens_per_second == 64


REFUSED = {
    "vllm's failed requests": (vllm(failed=2), "2 of 22 requests failed"),
    "vllm at a rate": (vllm(request_rate=3.0), "requests came at 3.0 a second"),
    "vllm without a time": (vllm(median_tpot_ms=None), "median_tpot_ms is None"),
    "vllm with NaN": (vllm(median_tpot_ms=float("nan")), "median_tpot_ms is nan"),
    "vllm of one token each": (vllm(median_tpot_ms=0.0), "is 0"),
    "aiperf that was cancelled": (aiperf(was_cancelled=True), "it was cancelled"),
    "aiperf that stalled": (
        aiperf(is_complete=False, incomplete_reason="stalled"), "not whole: stalled",
    ),
    "aiperf without streaming": (aiperf(inter_token_latency=None), "--streaming"),
    "aiperf in another unit": (
        aiperf(time_to_first_token={"unit": "sec", "p50": 0.05}), "is in 'sec', not ms",
    ),
    "aiperf's errors": (
        aiperf(error_request_count={"unit": "requests", "avg": 5}), "5 of 25 requests failed",
    ),
    "guidellm's errors": (guidellm(errored=1), "1 of 21 requests failed"),
    "a sweep of guidellm": (guidellm(benchmarks=3), "holds 3 benchmarks"),
    "guidellm at a rate": (guidellm({"type_": "poisson", "rate": 2}), "strategy is 'poisson'"),
    "something else": ({"a": 1}, "is no result of"),
    "a list": ([], "is no result of"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_measurement_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    document, said = REFUSED[name]
    with pytest.raises(Refused, match=said):
        read_run(written(tmp_path, document))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("{")
    with pytest.raises(Refused, match="is no JSON"):
        read_run(file)


def test_runs_of_unequal_work_have_no_ratio(tmp_path: Path) -> None:
    one = read_run(written(tmp_path, vllm()))
    longer = read_run(written(tmp_path, vllm(total_output_tokens=700), "longer.json"))
    with pytest.raises(Refused, match=r"output lengths reach from 32\.0 to 35\.0"):
        rows_of({"base": [one], "quantized": [longer]}, None)


def test_runs_of_other_concurrencies_have_no_ratio(tmp_path: Path) -> None:
    one = read_run(written(tmp_path, vllm()))
    other = read_run(written(tmp_path, vllm(max_concurrency=8), "other.json"))
    with pytest.raises(Refused, match="they say 4, 8"):
        rows_of({"base": [one], "quantized": [other]}, None)
    silent = read_run(written(tmp_path, vllm(max_concurrency=None), "silent.json"))
    with pytest.raises(Refused, match="give --concurrency"):
        rows_of({"base": [silent]}, None)
    assert "OutputTokensPerSecond@2" in rows_of({"base": [silent]}, 2)


def test_six_runs_of_each_are_judged_by_the_gates_and_fewer_are_not(tmp_path: Path) -> None:
    def imported(runs: int) -> Json:
        arguments = ["import-benchmark", "--output", str(tmp_path / f"out{runs}"),
                     "--concurrency", "1"]  # fmt: skip
        for index in range(runs):
            for condition, speed in (("base", 1.0), ("quantized", 1.5 + 0.001 * index)):
                document = vllm(speed, max_concurrency=1)
                file = written(tmp_path, document, f"{condition}{index}.json")
                arguments += [f"--{condition}", str(file)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        document = json.loads((tmp_path / f"out{runs}" / "benchmark.json").read_text())
        assert document["notes"]["imported/base"] == f"{runs} runs of vllm bench serve"
        gates = judge(Gates(), document["measurements"]).gates
        return {gate.name: gate.verdict for gate in gates}

    assert imported(6)["decodeSpeed"] is Verdict.PASSED
    assert imported(5)["decodeSpeed"] is Verdict.INCONCLUSIVE
