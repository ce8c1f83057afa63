"""Which recipes a spec may name, by the models and by the rules that the API server checks."""

from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from pydantic import ValidationError

from builders import spec_document
from lora_api.crd import custom_resource_definition
from lora_api.line import source_names
from lora_api.sources import requested_sources
from lora_api.spec import Spec, parse_spec

CALIBRATION = {"sources": [{"uri": "s3://models/calibration.jsonl"}]}
G32 = {"name": "g32", "method": "GPTQ", "gptq": {"bits": 4, "groupSize": 32}}
AWQ = {"name": "awq", "method": "AWQ", "awq": {"bits": 4, "groupSize": 64}}
NONE = {"name": "none", "method": "None"}

ADMITTED: dict[str, dict[str, Any]] = {
    "GPTQ": {"method": "GPTQ", "calibration": CALIBRATION},
    "None": {"method": "None"},
    "None, and a calibration that stays": {"method": "None", "calibration": CALIBRATION},
    "None after GPTQ": {"method": "GPTQ", "calibration": CALIBRATION, "candidates": [G32, NONE]},
    "GPTQ after None": {"method": "None", "calibration": CALIBRATION, "candidates": [G32]},
    "AWQ by its defaults": {"method": "AWQ", "calibration": CALIBRATION},
    "AWQ after GPTQ": {
        "method": "GPTQ",
        "calibration": CALIBRATION,
        "candidates": [AWQ],
    },
    "None twice": {"method": "None", "candidates": [NONE]},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "GPTQ without calibration": ({"method": "GPTQ"}, "calibration is missing"),
    "GPTQ after None without calibration": (
        {"method": "None", "candidates": [G32]}, "calibration is missing",
    ),
    "a GPTQ candidate without parameters": (
        {"method": "None", "calibration": CALIBRATION,
         "candidates": [{"name": "a", "method": "GPTQ"}]}, "needs gptq",
    ),
    "AWQ without calibration": ({"method": "AWQ"}, "calibration is missing"),
    "an AWQ candidate with GPTQ's parameters": (
        {"method": "None", "calibration": CALIBRATION, "candidates": [G32 | {"method": "AWQ"}]},
        "needs gptq",
    ),
    "None with GPTQ's parameters": (
        {"method": "None", "candidates": [G32 | NONE]}, "needs gptq",
    ),
}  # fmt: skip


def parsed(quantization: dict[str, Any]) -> Spec:
    return parse_spec(spec_document(quantization=quantization))


def ruled_out(quantization: dict[str, Any]) -> list[str]:
    """Messages of the CRD's own rules that do not hold, evaluated as CEL."""
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    node = spec["properties"]["quantization"]
    whole = spec_document(quantization=quantization) | {"profile": ""}
    checked = [(spec, whole), (node, quantization)]
    checked += [
        (node["properties"]["candidates"]["items"], c) for c in quantization.get("candidates", [])
    ]
    environment = celpy.Environment()
    return [
        rule["message"]
        for part, found in checked
        for rule in part["x-kubernetes-validations"]
        if "oldSelf" not in rule["rule"]
        and not environment.program(environment.compile(rule["rule"])).evaluate(
            {"self": json_to_cel(found)}
        )
    ]


@pytest.mark.parametrize("quantization", ADMITTED.values(), ids=ADMITTED.keys())
def test_models_and_rules_admit(quantization: dict[str, Any]) -> None:
    assert parsed(quantization)
    assert ruled_out(quantization) == []


@pytest.mark.parametrize(("quantization", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_models_and_rules_refuse(quantization: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        parsed(quantization)
    assert [said in message for message in ruled_out(quantization)] == [True]


def test_calibration_on_the_evaluation_set_is_refused_whatever_the_method() -> None:
    seen = {"sources": [{"uri": "s3://models/task.jsonl"}]}
    for method in ("GPTQ", "None"):
        quantization = {"method": method, "calibration": seen}
        with pytest.raises(ValidationError, match="its texts were seen"):
            parsed(quantization)
        assert len(ruled_out(quantization)) == 1


@pytest.mark.parametrize(
    ("quantization", "is_read"),
    [(ADMITTED["None, and a calibration that stays"], False), (ADMITTED["GPTQ after None"], True)],
)
def test_calibration_is_a_source_only_where_a_recipe_reads_it(
    quantization: dict[str, Any], is_read: bool
) -> None:
    spec = parsed(quantization)
    assert ("calibration0" in source_names(spec)) == is_read
    assert source_names(spec).keys() == requested_sources(spec).keys()
