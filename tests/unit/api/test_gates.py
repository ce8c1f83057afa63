"""The gates: which numbers pass, and that nothing else ever does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.gates import (
    GENERAL_PERPLEXITY,
    OUTPUT_TOKENS_PER_SECOND,
    TASK_NLL,
    TASK_PERPLEXITY,
    TTFT_P50,
    WEIGHTS_BYTES,
    Judgement,
    Measurements,
    Verdict,
    at_concurrency,
    judge,
    judge_quality,
)
from lora_api.gatespec import Gates

SPEED = at_concurrency(OUTPUT_TOKENS_PER_SECOND, 1)
TTFT = at_concurrency(TTFT_P50, 1)
LOG = {"base": 3.0, "merged": 2.0, "quantized": 2.02}


def good() -> Measurements:
    ppl = {c: f"{math.exp(v):.6f}" for c, v in LOG.items()}
    return {
        TASK_NLL: {c: str(v) for c, v in LOG.items()},
        TASK_PERPLEXITY: ppl,
        GENERAL_PERPLEXITY: {"base": "9", "merged": "9.5", "quantized": "9.6"},
        WEIGHTS_BYTES: {"base": "1000", "merged": "1000", "quantized": "400"},
        SPEED: {"base": "100", "quantized": "150"},
        TTFT: {"base": "50", "quantized": "51"},
    }


def with_value(metric: str, condition: str, value: str) -> Measurements:
    rows = good()
    rows[metric] = rows[metric] | {condition: value}
    return rows


def verdict_of(judgement: Judgement, gate: str) -> Verdict:
    return next(g.verdict for g in judgement.gates if g.name == gate)


def test_good_numbers_pass_every_gate() -> None:
    judgement = judge(Gates(), good())
    assert judgement.verdict is Verdict.PASSED
    assert judgement.summary == "6/6"
    assert {g.name: g.observed for g in judgement.gates} == {
        "taskQuality": "+2.0%",
        "gainRetained": "98.0%",
        "generalQuality": "+1.1%",
        "weightsSize": "-60.0%",
        "decodeSpeed": "+50.0%",
        "firstToken": "+2.0%",
    }


@pytest.mark.parametrize(
    ("gate", "metric", "value"),
    [
        ("taskQuality", TASK_PERPLEXITY, "8.0"),
        ("gainRetained", TASK_NLL, "2.3"),
        ("generalQuality", GENERAL_PERPLEXITY, "10.1"),
        ("weightsSize", WEIGHTS_BYTES, "801"),
        ("decodeSpeed", SPEED, "94.9"),
        ("firstToken", TTFT, "62.6"),
    ],
)
def test_each_gate_fails_beyond_its_limit_and_decides(gate: str, metric: str, value: str) -> None:
    judgement = judge(Gates(), with_value(metric, "quantized", value))
    assert verdict_of(judgement, gate) is Verdict.FAILED
    assert judgement.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("gate", "metric", "value"),
    [
        ("weightsSize", WEIGHTS_BYTES, "800"),
        ("decodeSpeed", SPEED, "95"),
        ("firstToken", TTFT, "62.5"),
    ],
)  # fmt: skip
def test_a_number_exactly_at_the_limit_passes(gate: str, metric: str, value: str) -> None:
    judgement = judge(Gates(), with_value(metric, "quantized", value))
    assert verdict_of(judgement, gate) is Verdict.PASSED


@pytest.mark.parametrize("bad", ["nan", "inf", "-1", "0", "", "n/a", "1e400"])
@pytest.mark.parametrize("metric", [TASK_NLL, TASK_PERPLEXITY, WEIGHTS_BYTES, SPEED, TTFT])
@pytest.mark.parametrize("condition", ["base", "quantized"])
def test_what_is_no_proper_number_is_an_error_and_never_passes(
    bad: str, metric: str, condition: str
) -> None:
    if metric == TASK_PERPLEXITY and condition == "base":
        condition = "merged"  # the reference of that gate
    judgement = judge(Gates(), with_value(metric, condition, bad))
    assert judgement.verdict is Verdict.ERROR


def test_nothing_measured_is_an_error() -> None:
    assert judge(Gates(), {}).verdict is Verdict.ERROR


def test_without_a_general_set_its_gate_does_not_apply() -> None:
    rows = good()
    del rows[GENERAL_PERPLEXITY]
    judgement = judge(Gates(), rows)
    assert verdict_of(judgement, "generalQuality") is Verdict.NOT_APPLICABLE
    assert judgement.verdict is Verdict.PASSED
    assert judgement.summary == "5/5"


def test_a_dry_run_gate_is_reported_and_does_not_decide() -> None:
    gates = Gates.model_validate({"decodeSpeed": {"mode": "DryRun"}})
    judgement = judge(gates, with_value(SPEED, "quantized", "10"))
    assert verdict_of(judgement, "decodeSpeed") is Verdict.FAILED
    assert judgement.verdict is Verdict.PASSED


def test_when_every_gate_is_disabled_nobody_has_vouched_and_nothing_serves() -> None:
    names = Gates.model_fields
    gates = Gates.model_validate({name: {"mode": "Disabled"} for name in names})
    assert judge(gates, good()).verdict is Verdict.ERROR


def test_an_adapter_that_does_not_help_fails_and_no_recipe_can_cure_it() -> None:
    rows = with_value(TASK_NLL, "merged", "3.4")
    judgement = judge_quality(Gates(), rows)
    gain = next(g for g in judgement.gates if g.name == "gainRetained")
    assert gain.verdict is Verdict.FAILED
    assert not gain.recipe_can_help
    assert "right adapter" in gain.message


numbers = st.sampled_from(["1", "2", "0", "nan", "-3", "x", "1e9", "0.5"])
measured = st.dictionaries(
    st.sampled_from([TASK_NLL, TASK_PERPLEXITY, WEIGHTS_BYTES, SPEED, TTFT, "Other"]),
    st.dictionaries(st.sampled_from(["base", "dynamic", "merged", "quantized"]), numbers),
)


@given(measured)
def test_passed_means_that_every_enforced_gate_passed_or_does_not_apply(rows: Measurements) -> None:
    judgement = judge(Gates(), rows)
    everything = all(g.verdict in (Verdict.PASSED, Verdict.NOT_APPLICABLE) for g in judgement.gates)
    assert (judgement.verdict is Verdict.PASSED) == everything
