"""Gates of one's own: which questions can be asked, and that they decide as the built-in ones."""

from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from pydantic import ValidationError

from builders import estimate_row, measurements, spec_document
from lora_api.crd import custom_resource_definition
from lora_api.gates import GateResult, Measurements, Verdict, judge, judge_quality
from lora_api.gatespec import Gates
from lora_api.spec import parse_spec


def speed_row(value: float, half: float = 0.01, blocks: str = "8") -> dict[str, str]:
    return {"base": "100", "quantized": f"{value}", "quantizedLower": f"{value * (1 - half)}",
            "quantizedUpper": f"{value * (1 + half)}", "blocks": blocks}  # fmt: skip


def rows() -> Measurements:
    quality, speed = measurements()
    return quality | speed | {
        "OutputTokensPerSecond@8": speed_row(150.0),
        "OutputTokensPerSecond@8:quantized/base": estimate_row(1.5, blocks="8"),
        "TimeToFirstToken/p50@8": speed_row(700.0),
    }  # fmt: skip


def judged(rows: Measurements, **gate: Any) -> GateResult:
    gates = Gates.model_validate({"custom": [{"name": "own", **gate}]})
    return next(g for g in judge(gates, rows).gates if g.name == "own")


BUSY = {"metric": "OutputTokensPerSecond", "concurrency": 8}
FIRST = {"metric": "TimeToFirstToken", "concurrency": 8}
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({**BUSY, "min": "148"}, "Passed", "150 [148.5, 151.5]"),
    ({**BUSY, "min": "149"}, "Inconclusive", "150 [148.5, 151.5]"),
    ({**BUSY, "min": "152"}, "Failed", "150 [148.5, 151.5]"),
    ({**FIRST, "max": "800"}, "Passed", "700 [693, 707]"),
    ({**FIRST, "max": "600"}, "Failed", "700 [693, 707]"),
    ({**BUSY, "against": "Base", "maxDecrease": "10%"}, "Passed", "+50.0% [+49.9%, +50.1%]"),
    ({**BUSY, "against": "Base", "maxIncrease": "10%"}, "Failed", "+50.0% [+49.9%, +50.1%]"),
    ({"metric": "Perplexity", "against": "Merged", "maxIncrease": "2%"}, "Passed",
     "+1.0% [+0.9%, +1.1%]"),
    ({"metric": "Perplexity", "against": "Merged", "maxIncrease": "0.5%"}, "Failed",
     "+1.0% [+0.9%, +1.1%]"),
    ({"metric": "WeightsBytes", "max": "400"}, "Passed", "400 "),
    ({"metric": "WeightsBytes", "max": "399"}, "Failed", "400 "),
    ({"metric": "PeakMemoryBytes", "against": "Merged", "minDecrease": "25%"}, "Passed", "-25.0% "),
    ({"metric": "PeakMemoryBytes", "against": "Base", "minDecrease": "26%"}, "Failed", "-25.0% "),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "verdict", "seen"), CASES)
def test_a_gate_of_one_s_own_decides_by_the_whole_interval(
    gate: dict[str, Any], verdict: str, seen: str
) -> None:
    result = judged(rows(), **gate)
    assert (result.verdict, f"{result.observed} {result.interval}") == (Verdict(verdict), seen)


def test_it_decides_for_all_where_it_is_enforced_and_only_there() -> None:
    gate = {"name": "own", **BUSY, "min": "152"}
    enforced = judge(Gates.model_validate({"custom": [gate]}), rows())
    assert enforced.verdict is Verdict.FAILED
    told = judge(Gates.model_validate({"custom": [{**gate, "mode": "DryRun"}]}), rows())
    assert told.verdict is Verdict.PASSED


def test_it_judges_quality_before_speed_is_measured() -> None:
    quality, _ = measurements()
    custom = [
        {"name": "strict", "metric": "Perplexity", "against": "Merged", "maxIncrease": "0.5%"},
        {"name": "busy", **BUSY, "min": "1"},
    ]
    found = judge_quality(Gates.model_validate({"custom": custom}), quality)
    assert [g.name for g in found.gates][-1] == "strict"
    assert found.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"blocks": "5"}, Verdict.INCONCLUSIVE, "5 of the 6 blocks"),
        ({"quantized": "NaN"}, Verdict.ERROR, "not finite"),
        ({"quantized": "9"}, Verdict.ERROR, "bounds that do not hold its value"),
    ],
)
def test_what_is_no_proper_number_never_passes(
    change: dict[str, str], verdict: Verdict, said: str
) -> None:
    broken = rows() | {"OutputTokensPerSecond@8": speed_row(150.0) | change}
    result = judged(broken, **BUSY, min="1")
    assert result.verdict is verdict
    assert said in result.message


def test_what_was_not_measured_is_an_error_and_what_does_not_apply_is_said() -> None:
    missing = judged(rows(), metric="TimePerOutputToken", max="10")
    assert (missing.verdict, missing.message) == (
        Verdict.ERROR, "TimePerOutputToken/p50@1 of quantized was not measured",
    )  # fmt: skip
    for gate, said in (
        ({"metric": "PassRate", "maxDecrease": "1%"}, "scorer"),
        ({"metric": "Perplexity", "set": "general", "maxIncrease": "1%"}, "general"),
    ):
        result = judged(rows(), against="Merged", **gate)
        assert result.verdict is Verdict.NOT_APPLICABLE
        assert said in result.message


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**BUSY}, "exactly one"),
    ({**BUSY, "min": "1", "max": "2"}, "exactly one"),
    ({**BUSY, "maxDecrease": "10%"}, "need against"),
    ({**BUSY, "against": "Base", "min": "1"}, "need against"),
    ({**BUSY, "against": "Merged", "maxDecrease": "10%"}, "against Base only"),
    ({"metric": "Perplexity", "max": "8"}, "against Merged only"),
    ({"metric": "Perplexity", "against": "Base", "maxIncrease": "1%"}, "against Merged only"),
    ({**BUSY, "concurrency": 4, "min": "1"}, "not in benchmark.workload.concurrency"),
    ({**BUSY, "name": "decodeSpeed", "min": "1"}, "string_pattern_mismatch"),
]


@pytest.mark.parametrize(("gate", "said"), REFUSED)
def test_a_question_that_has_no_answer_is_refused(gate: dict[str, Any], said: str) -> None:
    changes = {"gates.custom": [{"name": "own", **gate}],
               "benchmark.workload.concurrency": [1, 8]}  # fmt: skip
    with pytest.raises(ValidationError) as refused:
        parse_spec(spec_document(**changes))
    assert said in str(refused.value) or said in str(refused.value.errors())


def admitted(gate: dict[str, Any]) -> bool:
    """What the rules of the CRD say of a gate, evaluated as CEL."""
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    gates = schema["properties"]["spec"]["properties"]["gates"]["properties"]
    found = json_to_cel({"name": "own", "concurrency": 1, "set": "task", **gate})
    environment = celpy.Environment()
    programs = (
        environment.program(environment.compile(rule["rule"]))
        for rule in gates["custom"]["items"]["x-kubernetes-validations"]
    )
    return all(bool(program.evaluate({"self": found})) for program in programs)


def test_the_api_server_s_rules_say_the_same() -> None:
    assert all(admitted(gate) for gate, _, _ in CASES)
    ruled = [gate for gate, said in REFUSED if "exactly" in said or "against" in said]
    assert len(ruled) == 7
    assert not any(admitted(gate) for gate in ruled)
