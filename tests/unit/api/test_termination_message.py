"""Results travel in 4 KiB, whatever the number of sources and candidates."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_api.estimates import GAIN_RETAINED, Part, comparison
from lora_api.jobcontract import (
    MAX_RESULT_BYTES,
    PinnedSource,
    Reason,
    Stage,
    StageFailure,
    StageResult,
    parse_outcome,
)


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def numbers(seed: int) -> dict[str, dict[str, str]]:
    draw = random.Random(seed)
    rows = {
        metric: {
            c: f"{draw.random() * 100:.6g}" for c in ("base", "dynamic", "merged", "quantized")
        }
        for metric in ("NegativeLogLikelihood/task", "Perplexity/task", "WeightsBytes")
    }
    pairs = [("quantized", "merged"), ("base", "merged")]
    compared = [comparison("Perplexity/task", *pair, part) for pair in pairs for part in Part]
    compared += [comparison(GAIN_RETAINED, *pairs[0], part) for part in Part]
    for key in (*compared, comparison("Perplexity/task", "merged", "dynamic")):
        value = draw.random()
        rows[key] = {
            "value": f"{value:.6f}", "lower": f"{value * 0.99:.6f}", "upper": f"{value * 1.01:.6f}",
            "documents": "104", "effectiveDocuments": "101.8",
        }  # fmt: skip
    return rows


def resolved(sources: int, candidates: int) -> StageResult:
    pins = {
        f"calibration{i}": PinnedSource(
            uri=f"s3://datasets/team/part-{i}.jsonl", connection="models",
            key=f"pins/demo/{digest(f'k{i}')[7:]}.json", digest=digest(f"p{i}"),
        )
        for i in range(sources)
    }  # fmt: skip
    done = []
    for i in range(candidates):
        done.append(
            StageResult(
                stage=Stage.QUANTIZE,
                input_hash=digest(f"q{i}"),
                digest=digest(f"a{i}"),
                notes={"worst": "0.1 at layer 3"},
            )
        )
        done.append(StageResult(stage=Stage.EVALUATE, input_hash=digest(f"e{i}"),
                                measurements=numbers(i)))  # fmt: skip
    return StageResult(
        stage=Stage.RESOLVE, input_hash=digest("r"), pins=pins, image="engine", done=done
    )


@pytest.mark.parametrize(("sources", "candidates"), [(5, 1), (5, 3), (8, 5)])
def test_what_resolve_found_fits_and_is_read_back(sources: int, candidates: int) -> None:
    result = resolved(sources, candidates)
    message = result.to_termination_message()
    assert len(message.encode()) <= MAX_RESULT_BYTES
    read = parse_outcome(message)
    assert isinstance(read, StageResult)
    assert read.pins == result.pins
    assert [r.measurements for r in read.done] == [r.measurements for r in result.done]


def test_a_small_result_is_plain_json_with_its_notes() -> None:
    result = StageResult(stage=Stage.MERGE, input_hash=digest("m"), notes={"tensors": "12"})
    assert result.to_termination_message().startswith('{"stage":"merge"')
    assert parse_outcome(result.to_termination_message()) == result


@pytest.mark.fault("F48")
def test_what_cannot_fit_is_an_error_and_not_half_a_message() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        resolved(60, 30).to_termination_message()


def test_a_failure_is_read_as_one() -> None:
    failure = StageFailure(failure=Reason.ACCESS_DENIED, message="no; do this")
    assert parse_outcome(failure.model_dump_json(by_alias=True)) == failure


@pytest.mark.fault("F32")
@settings(deadline=None)
@given(st.one_of(st.text(), st.sampled_from(["1", "[]", '"packed"', "null", "{}"]),
                 st.text().map(lambda t: f'{{"packed": "{t}"}}')))  # fmt: skip
def test_anything_else_is_no_outcome(text: str) -> None:
    assert parse_outcome(text) is None
