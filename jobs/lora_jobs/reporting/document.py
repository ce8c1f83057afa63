"""What the report says. Pure: from a walked line to a JSON document, no numbers of its own.

`schemaVersion` is raised when a field changes its meaning or goes; new fields may come at any time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_api.estimates import GAIN_RETAINED, Estimate, comparison, estimate
from lora_api.gates import (
    BASE,
    CONDITIONS,
    DYNAMIC,
    MERGED,
    QUANTIZED,
    TASK_PERPLEXITY,
    WEIGHTS_BYTES,
    Judgement,
    Measurements,
    MissingMeasurement,
    Verdict,
)
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.runtimes import NO_ACCELERATOR, Runtime
from lora_jobs.conditiontable import condition_rows
from lora_jobs.reporting.speed import speed_section

SCHEMA_VERSION = 1
HALVES = (
    "There is more than one recipe: gates chose on one half of the evaluation documents, and are "
    "shown as they judge the chosen one on the other half."
)
CPU_ONLY = (
    "Measured on CPUs: these speeds say nothing about accelerators, for which 4-bit weights are."
)
ONE_AT_A_TIME = (
    "The Transformers engine answers one request at a time: at a higher concurrency the others "
    "wait, and their waiting is part of the time to first token."
)
PREALLOCATED = (
    "Peak memory holds the engine's pre-allocated KV cache, so it hardly differs between models; "
    "the weights row does."
)


def report_document(
    *,
    name: str,
    run_id: str,
    judgement: Judgement,
    measurements: Measurements,
    done: Sequence[tuple[StageCall, StageResult]],
    candidate: str,
    sources: Mapping[str, Any],
    spec: Mapping[str, Any],
    samples: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole report.

    Args:
        name: The object, as namespace/name.
        run_id: Identity of the run's inputs.
        judgement: What was decided.
        measurements: Decimal strings by metric and condition.
        done: Every finished stage in order, all candidates among them.
        candidate: The chosen recipe, or the last that was tried.
        sources: What was pinned, by name.
        spec: The spec that was judged.
        samples: The benchmark's raw record, if there is one.
    """
    benchmark = next((c.parameters for c, _ in done if c.stage is Stage.BENCHMARK), {})
    if samples:
        benchmark = samples["workload"]
    return {
        "schemaVersion": SCHEMA_VERSION,
        "name": name,
        "runId": run_id,
        "verdict": judgement.verdict.value,
        "sentence": sentence(judgement),
        "candidate": candidate,
        "artifact": _artifact(done, candidate),
        "conditions": list(CONDITIONS),
        "table": [row._asdict() for row in condition_rows(measurements)],
        "attribution": attribution(measurements),
        "gates": [gate.to_json() for gate in judgement.gates],
        "caveats": _caveats(benchmark, spec),
        "candidates": _candidates(done, candidate),
        "speed": speed_section(samples or {}, measurements),
        "measurements": measurements,
        "stages": [_stage(call, result) for call, result in done],
        "sources": dict(sources),
        "spec": dict(spec),
    }


def sentence(judgement: Judgement) -> str:
    """The verdict and its reason in one line."""
    match judgement.verdict:
        case Verdict.PASSED:
            return f"All enforced gates passed ({judgement.summary}): this model may serve."
        case Verdict.FAILED:
            worst = [g for g in judgement.failed if g.verdict is Verdict.FAILED]
            said = "; ".join(
                f"{g.name} is {f'{g.observed} {g.interval}'.strip()}, its limit {g.limit}"
                for g in worst
            )
            return f"It does not serve: {said}."
        case _:
            said = "; ".join(f"{g.name}: {g.message or g.verdict.value}" for g in judgement.failed)
            return f"It does not serve, for it could not be judged: {said or 'no gate applies'}."


def attribution(measurements: Measurements) -> str:
    """Where the task's negative log-likelihood comes from, in nats per token; may be empty.

    All with 95 % intervals over all documents, from the ratios of perplexity: their logarithms are
    the differences.
    """
    told = [
        _nats(measurements, "the adapter gains {} nats per token", BASE, MERGED, digits=3),
        _nats(measurements, "merging costs {}", MERGED, DYNAMIC, digits=4),
        _nats(measurements, "4 bits cost {}", QUANTIZED, MERGED, digits=4),
    ]
    try:
        kept = estimate(measurements, comparison(GAIN_RETAINED, QUANTIZED, MERGED))
        told.append(f"{_with_interval(kept, lambda v: f'{v:.1%}')} of the gain is kept")
    except MissingMeasurement:
        pass
    said = [t for t in told if t]
    return f"{', '.join(said)}." if said else ""


def _nats(measurements: Measurements, text: str, condition: str, against: str, digits: int) -> str:
    try:
        ratio = estimate(measurements, comparison(TASK_PERPLEXITY, condition, against))
    except MissingMeasurement:
        return ""
    return text.format(_with_interval(ratio, lambda v: f"{math.log(v):+.{digits}f}"))


def _with_interval(seen: Estimate, show: Callable[[float], str]) -> str:
    if seen.lower is None or seen.upper is None:
        return show(float(seen.value))
    return f"{show(float(seen.value))} [{show(float(seen.lower))}, {show(float(seen.upper))}]"


def _artifact(done: Sequence[tuple[StageCall, StageResult]], candidate: str) -> str:
    made = [r.digest for c, r in done if c.stage is Stage.QUANTIZE and c.candidate == candidate]
    return made[-1] if made else ""


def _caveats(benchmark: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    caveats = []
    if spec["quantization"].get("candidates"):
        caveats.append(HALVES)
    if benchmark.get("accelerator") == NO_ACCELERATOR:
        caveats.append(CPU_ONLY)
    if benchmark.get("runtime") == Runtime.TRANSFORMERS and max(_concurrencies(benchmark)) > 1:
        caveats.append(ONE_AT_A_TIME)
    if benchmark.get("runtime") == Runtime.VLLM and benchmark.get("accelerator") == NO_ACCELERATOR:
        caveats.append(PREALLOCATED)
    if not benchmark:
        caveats.append("Speed was not measured: the model was rejected on quality before.")
    return caveats


def _concurrencies(benchmark: Mapping[str, Any]) -> list[int]:
    return benchmark.get("concurrency") or [1]


def _candidates(
    done: Sequence[tuple[StageCall, StageResult]], chosen: str
) -> list[dict[str, str | bool]]:
    """Every recipe that was tried, in order, with what decides between them."""
    digests = {c.candidate: r.digest for c, r in done if c.stage is Stage.QUANTIZE}
    return [
        {
            "name": call.candidate,
            "perplexity": result.measurements.get(TASK_PERPLEXITY, {}).get(QUANTIZED, ""),
            "weightsBytes": result.measurements.get(WEIGHTS_BYTES, {}).get(QUANTIZED, ""),
            "digest": digests.get(call.candidate, ""),
            "chosen": call.candidate == chosen,
        }
        for call, result in done
        if call.stage is Stage.EVALUATE
    ]


def _stage(call: StageCall, result: StageResult) -> dict[str, Any]:
    return {
        "stage": call.stage.value,
        "candidate": call.candidate,
        "inputHash": call.input_hash,
        "parameters": call.parameters,
        "parents": call.parents,
        "digest": result.digest,
        "message": result.message,
        "notes": result.notes,
        "seconds": result.seconds,
    }
