"""The gates: which intervals pass, and that nothing else ever does."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import estimate_row, measurements
from lora_api.estimates import GAIN_RETAINED, PASS_RATE, Part, comparison
from lora_api.gates import (
    GENERAL_PERPLEXITY,
    OUTPUT_TOKENS_PER_SECOND,
    QUANTIZED_MODULES,
    TASK_PERPLEXITY,
    TTFT_P50,
    WEIGHTS_BYTES,
    GateResult,
    Judgement,
    Measurements,
    Verdict,
    accept,
    at_concurrency,
    gates_hash,
    judge,
    judge_quality,
    modules_row,
)
from lora_api.gatespec import GateName, Gates, Override

TASK = comparison(TASK_PERPLEXITY, "quantized", "merged")
GENERAL = comparison(GENERAL_PERPLEXITY, "quantized", "merged")
GAIN = comparison(TASK_PERPLEXITY, "base", "merged")
RETAINED = comparison(GAIN_RETAINED, "quantized", "merged")
PASSED = comparison(PASS_RATE, "quantized", "merged")
SPEED = comparison(at_concurrency(OUTPUT_TOKENS_PER_SECOND, 1), "quantized", "base")
TTFT = comparison(at_concurrency(TTFT_P50, 1), "quantized", "base")


def good() -> Measurements:
    quality, speed = measurements(task_ratio=1.02)
    general = {
        GENERAL_PERPLEXITY: {"base": "9", "merged": "9.5", "quantized": "9.6"},
        GENERAL: estimate_row(1.011),
    }
    return quality | general | modules_row(28, 0, 0) | speed


def bounded(key: str, value: str, lower: str, upper: str, **counts: str) -> Measurements:
    """Good numbers, with one estimate changed."""
    row = {**good()[key], "value": value, "lower": lower, "upper": upper, **counts}
    return {**good(), key: row}


def gate_of(judgement: Judgement, name: str) -> GateResult:
    return next(g for g in judgement.gates if g.name == name)


def test_good_numbers_pass_every_gate() -> None:
    judgement = judge(Gates(), good())
    assert judgement.verdict is Verdict.PASSED
    assert judgement.summary == "7/7"
    assert {g.name: (g.observed, g.interval) for g in judgement.gates} == {
        "taskQuality": ("+2.0%", "[+1.9%, +2.1%]"),
        "gainRetained": ("99.0%", "[98.9%, 99.1%]"),
        "generalQuality": ("+1.1%", "[+1.0%, +1.2%]"),
        "passRate": ("", ""),
        "fallbacks": ("0.0%", ""),
        "dampingRaised": ("0.0%", ""),
        "weightsSize": ("-60.0%", ""),
        "decodeSpeed": ("+50.0%", "[+49.9%, +50.1%]"),
        "firstToken": ("+2.0%", "[+1.9%, +2.1%]"),
    }


LIMITS = [
    ("taskQuality", TASK, "1.05", +1),
    ("gainRetained", RETAINED, "0.8", -1),
    ("generalQuality", GENERAL, "1.05", +1),
    ("decodeSpeed", SPEED, "0.95", -1),
    ("firstToken", TTFT, "1.25", +1),
]
"""Gate, what it looks at, its default limit, and on which side of it is bad."""


@pytest.mark.fault("F31")
@pytest.mark.parametrize(("gate", "key", "limit", "bad"), LIMITS)
def test_the_whole_interval_decides_and_each_gate_decides_for_all(
    gate: str, key: str, limit: str, bad: int
) -> None:
    def judged(low: str, middle: str, high: str) -> Verdict:
        at = [str(float(Fraction(limit) + bad * Fraction(d))) for d in (low, middle, high)]
        at = sorted(at, key=float)
        judgement = judge(Gates(), bounded(key, at[1], at[0], at[2]))
        verdict = gate_of(judgement, gate).verdict
        assert judgement.verdict is verdict
        return verdict

    assert judged("-0.03", "-0.02", "-0.01") is Verdict.PASSED
    assert judged("-0.03", "-0.02", "0") is Verdict.PASSED  # a bound at the limit keeps it
    assert judged("-0.03", "-0.01", "0.000001") is Verdict.INCONCLUSIVE
    assert judged("-0.01", "0.01", "0.03") is Verdict.INCONCLUSIVE
    assert judged("0", "0.01", "0.03") is Verdict.INCONCLUSIVE
    assert judged("0.000001", "0.01", "0.03") is Verdict.FAILED


@pytest.mark.parametrize(("bytes_", "verdict"), [("800", Verdict.PASSED), ("801", Verdict.FAILED)])
def test_weight_bytes_are_exact_and_have_no_interval(bytes_: str, verdict: Verdict) -> None:
    rows = good()
    rows[WEIGHTS_BYTES] = rows[WEIGHTS_BYTES] | {"quantized": bytes_}
    assert gate_of(judge(Gates(), rows), "weightsSize").verdict is verdict


@pytest.mark.parametrize(
    ("fallbacks", "limit", "verdict"),
    [
        (0, "0%", Verdict.PASSED),
        (1, "0%", Verdict.FAILED),
        (7, "25%", Verdict.PASSED),
        (8, "25%", Verdict.FAILED),
    ],
)
def test_modules_that_were_rounded_to_nearest_fail_the_model_beyond_their_share(
    fallbacks: int, limit: str, verdict: Verdict
) -> None:
    gates = Gates.model_validate({"fallbacks": {"max": limit}})
    judgement = judge_quality(gates, good() | modules_row(28, fallbacks, 0))
    found = gate_of(judgement, "fallbacks")
    assert (judgement.verdict, found.verdict, found.interval) == (verdict, verdict, "")
    assert (found.limit, found.observed) == (f"<= {limit}", f"{fallbacks / 28:.1%}")
    assert (f"{fallbacks} of 28 modules" in found.message) is (fallbacks > 0)
    assert found.recipe_can_help, "of another method, or with another damping"


def test_damping_that_was_raised_is_told_and_decides_where_it_is_enforced() -> None:
    rows = good() | modules_row(28, 0, 2)
    told = judge(Gates(), rows)
    assert told.verdict is Verdict.PASSED
    assert gate_of(told, "dampingRaised").verdict is Verdict.FAILED
    assert "2 of 28 modules" in gate_of(told, "dampingRaised").message
    enforced = Gates.model_validate({"dampingRaised": {"mode": "Enforce"}})
    assert judge(enforced, rows).verdict is Verdict.FAILED


def test_where_quantize_counts_no_fallbacks_their_gates_do_not_apply() -> None:
    judgement = judge(Gates(), {k: r for k, r in good().items() if k != QUANTIZED_MODULES})
    assert judgement.verdict is Verdict.PASSED
    for name in ("fallbacks", "dampingRaised"):
        found = gate_of(judgement, name)
        assert found.verdict is Verdict.NOT_APPLICABLE
        assert "AWQ does not tell it" in found.message


@pytest.mark.parametrize("bad", ["-1", "29", "nan", "", "many"])
def test_a_count_of_fallbacks_that_cannot_be_is_an_error(bad: str) -> None:
    rows = good()
    rows[QUANTIZED_MODULES] = rows[QUANTIZED_MODULES] | {"fallbacks": bad}
    assert judge(Gates(), rows).verdict is Verdict.ERROR
    del rows[QUANTIZED_MODULES]["fallbacks"]
    assert judge(Gates(), rows).verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("value", "lower", "upper", "documents"),
    [("1.03", "0.99", "1.07", 400), ("1.06", "1.02", "1.10", 1600)],
)
def test_inconclusive_quality_says_how_many_documents_decide(
    value: str, lower: str, upper: str, documents: int
) -> None:
    # 100 documents; the interval must shrink by 2, or by 4, to end at the limit of 1.05.
    judgement = judge(Gates(), bounded(TASK, value, lower, upper))
    assert f"about {documents} documents decide" in gate_of(judgement, "taskQuality").message


def test_judged_on_a_half_the_whole_set_is_named() -> None:
    key = comparison(TASK_PERPLEXITY, "quantized", "merged", Part.CONFIRMATION)
    row = good()[key] | {"value": "1.03", "lower": "0.99", "upper": "1.07"}
    found = gate_of(judge(Gates(), {**good(), key: row}, Part.CONFIRMATION), "taskQuality")
    assert "about 800 documents (in the whole set" in found.message


@pytest.mark.parametrize(
    ("key", "value", "lower", "upper", "precision"),
    [
        (TTFT, "1.20", "1.00", "1.40", "4.1%"),  # 1.25 / 1.20 is 1.0416...
        (SPEED, "0.93", "0.80", "1.10", "2.1%"),  # 0.95 / 0.93 is 1.0215...
    ],
)
def test_inconclusive_speed_says_which_precision_decides(
    key: str, value: str, lower: str, upper: str, precision: str
) -> None:
    judgement = judge(Gates(), bounded(key, value, lower, upper))
    gate = next(g for g in judgement.gates if g.verdict is Verdict.INCONCLUSIVE)
    assert f"benchmark.precision of {precision} decides" in gate.message


@pytest.mark.parametrize(("gate", "key", "limit"), [(g, k, m) for g, k, m, _ in LIMITS])
def test_a_value_at_its_limit_is_never_decided(gate: str, key: str, limit: str) -> None:
    around = [str(float(limit) + d) for d in (-0.01, 0.01)]
    found = gate_of(judge(Gates(), bounded(key, limit, *around)), gate)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "at the limit: no " in found.message


@pytest.mark.parametrize("task_ratio", ["1.0", "5.0"])
def test_too_few_effective_documents_are_inconclusive_and_counted(task_ratio: str) -> None:
    few = {"documents": "40", "effectiveDocuments": "24.0"}
    rows = bounded(TASK, task_ratio, task_ratio, task_ratio, **few)
    found = gate_of(judge(Gates(), rows), "taskQuality")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "24.0 of the 30 effective documents" in found.message
    assert "about 10 like these" in found.message  # 40 * 30 / 24 = 50


def test_too_few_blocks_are_inconclusive() -> None:
    found = gate_of(judge(Gates(), bounded(SPEED, "2", "1.9", "2.1", blocks="5")), "decodeSpeed")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "5 of the 6 blocks" in found.message
    assert "maxDuration" in found.message


def test_without_an_interval_nothing_passes() -> None:
    rows = good()
    rows[SPEED] = {"value": "2", "blocks": "1"}
    rows[TASK] = {"value": "1", "documents": "50", "effectiveDocuments": "50"}
    judgement = judge(Gates(), rows)
    for gate in ("decodeSpeed", "taskQuality"):
        assert gate_of(judgement, gate).verdict is Verdict.INCONCLUSIVE
        assert gate_of(judgement, gate).interval == ""


@pytest.mark.fault("F31")
@pytest.mark.parametrize("bad", ["nan", "inf", "", "n/a", "1e400"])
@pytest.mark.parametrize("field", ["value", "lower", "upper"])
@pytest.mark.parametrize("key", [TASK, GAIN, RETAINED, SPEED, TTFT])
def test_what_is_no_proper_number_is_an_error_and_never_passes(
    bad: str, field: str, key: str
) -> None:
    rows = good()
    rows[key] = rows[key] | {field: bad}
    assert judge(Gates(), rows).verdict is Verdict.ERROR


@pytest.mark.fault("F31")
@pytest.mark.parametrize("value", ["0", "-1"])
@pytest.mark.parametrize("key", [TASK, GENERAL, GAIN, SPEED, TTFT])
def test_a_ratio_that_is_not_positive_is_an_error_though_less_may_be_better(
    key: str, value: str
) -> None:
    assert judge(Gates(), bounded(key, value, value, value)).verdict is Verdict.ERROR


def test_a_share_of_a_gain_may_be_negative_and_fails() -> None:
    rows = bounded(RETAINED, "-0.2", "-0.3", "-0.1")
    assert gate_of(judge(Gates(), rows), "gainRetained").verdict is Verdict.FAILED


@pytest.mark.parametrize(
    "row",
    [
        {"value": "1.2", "lower": "1.0", "upper": "1.1", "documents": "100"},
        {"value": "1.0", "lower": "1.0", "documents": "100"},
        {"value": "1.0", "lower": "1.0", "upper": "1.0"},
        {"lower": "1.0", "upper": "1.0", "documents": "100"},
        {},
    ],
    ids=["value outside", "one bound", "on nothing", "no value", "empty"],
)
def test_an_estimate_that_contradicts_itself_is_an_error(row: dict[str, str]) -> None:
    assert judge(Gates(), {**good(), TASK: row}).verdict is Verdict.ERROR


@pytest.mark.parametrize("bad", ["nan", "inf", "-1", "0", "", "n/a", "1e400"])
@pytest.mark.parametrize("condition", ["base", "quantized"])
def test_weight_bytes_that_are_no_proper_number_are_an_error(bad: str, condition: str) -> None:
    rows = good()
    rows[WEIGHTS_BYTES] = rows[WEIGHTS_BYTES] | {condition: bad}
    assert judge(Gates(), rows).verdict is Verdict.ERROR


@pytest.mark.fault("F31")
def test_nothing_measured_is_an_error() -> None:
    assert judge(Gates(), {}).verdict is Verdict.ERROR


def test_without_a_general_set_its_gate_does_not_apply() -> None:
    rows = good()
    del rows[GENERAL_PERPLEXITY]
    judgement = judge(Gates(), rows)
    assert gate_of(judgement, "generalQuality").verdict is Verdict.NOT_APPLICABLE
    assert judgement.verdict is Verdict.PASSED
    assert judgement.summary == "6/6"


@pytest.mark.parametrize(
    ("value", "lower", "upper", "verdict"),
    [
        ("-0.01", "-0.02", "0.00", Verdict.PASSED),
        ("0.00", "-0.0201", "0.0201", Verdict.INCONCLUSIVE),
        ("-0.05", "-0.08", "-0.0201", Verdict.FAILED),
    ],
)
def test_right_answers_are_judged_in_points_where_a_scorer_is_given(
    value: str, lower: str, upper: str, verdict: Verdict
) -> None:
    without = gate_of(judge(Gates(), good()), "passRate")
    assert without.verdict is Verdict.NOT_APPLICABLE
    assert "evaluation.task.scorer" in without.message
    row = {**estimate_row(1), "value": value, "lower": lower, "upper": upper}
    rates = {PASS_RATE: {"merged": "0.9", "quantized": "0.89"}}
    found = gate_of(judge(Gates(), good() | rates | {PASSED: row}), "passRate")
    assert (found.verdict, found.limit) == (verdict, ">= -2%")
    assert found.observed == f"{float(value):+.1%}"
    unlike = gate_of(judge(Gates(), good() | rates), "passRate")
    assert unlike.verdict is Verdict.ERROR, "half of a comparison is none"


def test_an_accepted_exception_is_told_and_does_not_decide() -> None:
    failed = judge(Gates(), bounded(TTFT, "1.5", "1.4", "1.6"))
    assert failed.verdict is Verdict.FAILED
    accepted = accept(failed, {"firstToken": "batch traffic, ticket 4711"})
    assert accepted.verdict is Verdict.PASSED
    assert accepted.summary == "6/7"
    found = gate_of(accepted, "firstToken")
    assert (found.verdict, found.accepted) == (Verdict.FAILED, "batch traffic, ticket 4711")
    assert found.message.startswith("accepted: batch traffic, ticket 4711")
    assert accept(failed, {"decodeSpeed": "no need"}).verdict is Verdict.FAILED


def test_a_missing_number_is_never_accepted() -> None:
    without = {k: row for k, row in good().items() if k != TTFT}
    everything = {name.value: "whatever" for name in GateName}
    assert accept(judge(Gates(), without), everything).verdict is Verdict.ERROR


def test_with_every_gate_accepted_nobody_has_vouched() -> None:
    rows = good() | {k: {**r, "value": "9", "lower": "8", "upper": "10"}
                     for k, r in good().items() if k in (TASK, GENERAL, TTFT)}  # fmt: skip
    only = Gates.model_validate(
        {n.value: {"mode": "Disabled"} for n in GateName if n != "firstToken"}
    )
    assert accept(judge(only, rows), {"firstToken": "why not"}).verdict is Verdict.ERROR


def test_every_gate_has_a_name_for_overrides() -> None:
    assert {n.value for n in GateName} == set(Gates().to_json())


def test_rules_without_exceptions_keep_the_hash_that_they_had() -> None:
    exception = Override(digest="sha256:" + "0" * 64, gate=GateName.FIRST_TOKEN, reason="r")
    assert gates_hash(Gates(), []) == gates_hash(Gates())
    assert gates_hash(Gates(), [exception]) != gates_hash(Gates())


def test_a_dry_run_gate_is_reported_and_does_not_decide() -> None:
    gates = Gates.model_validate({"decodeSpeed": {"mode": "DryRun"}})
    for upper in ("0.11", "2"):  # failed, inconclusive
        judgement = judge(gates, bounded(SPEED, "0.1", "0.09", upper))
        assert gate_of(judgement, "decodeSpeed").verdict is not Verdict.PASSED
        assert judgement.verdict is Verdict.PASSED


def test_the_worst_enforced_gate_is_the_verdict() -> None:
    unsure = bounded(TASK, "1.05", "1.0", "1.1")
    assert judge(Gates(), unsure).verdict is Verdict.INCONCLUSIVE
    failing = unsure | {GENERAL: estimate_row(1.5)}
    assert judge(Gates(), failing).verdict is Verdict.FAILED
    assert judge(Gates(), failing | {SPEED: {}}).verdict is Verdict.ERROR


def test_when_every_gate_is_disabled_nobody_has_vouched_and_nothing_serves() -> None:
    gates = Gates.model_validate({name.value: {"mode": "Disabled"} for name in GateName})
    assert judge(gates, good()).verdict is Verdict.ERROR


def test_an_adapter_that_does_not_help_fails_and_no_recipe_can_cure_it() -> None:
    found = gate_of(judge_quality(Gates(), bounded(GAIN, "0.7", "0.6", "0.8")), "gainRetained")
    assert found.verdict is Verdict.FAILED
    assert not found.recipe_can_help
    assert "right adapter" in found.message


def test_a_gain_that_may_be_none_is_an_error_and_no_share_of_it_is_judged() -> None:
    rows = bounded(GAIN, "1.02", "0.98", "1.06")
    found = gate_of(judge_quality(Gates(), rows), "gainRetained")
    assert found.verdict is Verdict.ERROR
    assert "cannot be told from none" in found.message
    assert "about 400 documents decide" in found.message


def test_each_part_of_the_documents_is_judged_by_its_own_numbers() -> None:
    key = comparison(TASK_PERPLEXITY, "quantized", "merged", Part.CONFIRMATION)
    rows = {**good(), key: estimate_row(1.3)}
    assert judge(Gates(), rows, Part.ALL).verdict is Verdict.PASSED
    assert gate_of(judge(Gates(), rows, Part.SELECTION), "taskQuality").verdict is Verdict.PASSED
    confirmed = gate_of(judge(Gates(), rows, Part.CONFIRMATION), "taskQuality")
    assert confirmed.verdict is Verdict.FAILED


numbers = st.sampled_from(["1", "1.01", "2", "0", "nan", "-3", "x", "1e9", "0.5", "40"])
measured = st.dictionaries(
    st.sampled_from([TASK, GAIN, RETAINED, WEIGHTS_BYTES, SPEED, TTFT, "Other"]),
    st.dictionaries(
        st.sampled_from(
            [
                "value",
                "lower",
                "upper",
                "documents",
                "effectiveDocuments",
                "blocks",
                "base",
                "quantized",
            ]
        ),
        numbers,
    ),
)


@given(measured)
def test_passed_means_that_every_enforced_gate_passed_or_does_not_apply(rows: Measurements) -> None:
    for changed in (rows, {**good(), **rows}):
        judgement = judge(Gates(), changed)
        fine = (Verdict.PASSED, Verdict.NOT_APPLICABLE)
        everything = all(g.verdict in fine for g in judgement.gates)
        assert (judgement.verdict is Verdict.PASSED) == everything


OF_QUANTIZATION = (
    "taskQuality", "generalQuality", "passRate", "fallbacks", "dampingRaised", "weightsSize",
)  # fmt: skip


def unquantized(rows: Measurements) -> Measurements:
    """The rows of a run in which nothing was quantized: speed is merged against base."""
    renamed = {
        k.replace("quantized/base", "merged/base") if "@" in k else k: r for k, r in rows.items()
    }
    return {k: r for k, r in renamed.items() if "quantized/" not in k}


def test_without_quantization_only_gain_and_speed_are_judged() -> None:
    judgement = judge(Gates(), unquantized(good()), served="merged")
    assert judgement.verdict is Verdict.PASSED
    by_name = {g.name: g for g in judgement.gates}
    for name in OF_QUANTIZATION:
        assert by_name[name].verdict is Verdict.NOT_APPLICABLE, name
    assert "method None" in by_name["taskQuality"].message
    applying = by_name.keys() - set(OF_QUANTIZATION)
    assert {by_name[name].verdict for name in applying} == {Verdict.PASSED}


def test_without_quantization_an_adapter_that_does_not_help_still_fails() -> None:
    rows = unquantized(bounded(GAIN, "0.9", "0.89", "0.91"))
    found = gate_of(judge(Gates(), rows, served="merged"), "gainRetained")
    assert found.verdict is Verdict.FAILED
    assert "does not help" in found.message


def test_without_quantization_a_speed_that_was_not_measured_is_an_error() -> None:
    rows = {k: r for k, r in unquantized(good()).items() if "@1:" not in k}
    assert judge(Gates(), rows, served="merged").verdict is Verdict.ERROR
