"""What the report says. Pure: from a walked line to a `Report`, no numbers of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_api.gates import (
    CONDITIONS,
    MERGED,
    QUANTIZED,
    TASK_PERPLEXITY,
    WEIGHTS_BYTES,
    Judgement,
    Measurements,
    Verdict,
)
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.line import artifact_of
from lora_api.report import CandidateRow, Fact, Report, ReportRow, SourceRecord, StageRecord
from lora_api.runtimes import NO_ACCELERATOR, Runtime
from lora_jobs.conditiontable import condition_rows
from lora_jobs.reporting.protocol import FORMULAS, protocol
from lora_jobs.reporting.quality import attribution, paired_differences
from lora_jobs.reporting.speed import environment_facts, speed_record

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
NOT_QUANTIZED = (
    "Method None: nothing was quantized, the merged model is what serves; gates on what "
    "quantization costs do not apply, speed is merged against base."
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
    scores: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Report:
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
        scores: What evaluate kept of the judged candidate, if there is something.
        provenance: Versions of the tools, if they are known.
    """
    served = _served(done, candidate)
    benchmark = next((c.parameters for c, _ in done if c.stage is Stage.BENCHMARK), {})
    if samples:
        benchmark = samples["workload"]
    parts, line = attribution(measurements)
    speed = speed_record(samples or {}, measurements)
    tools = [Fact(name=tool, text=version) for tool, version in sorted((provenance or {}).items())]
    environment = environment_facts(samples or {})
    known = {fact.name for fact in environment}
    return Report(
        name=name,
        run_id=run_id,
        verdict=judgement.verdict,
        sentence=sentence(judgement),
        candidate=candidate,
        artifact=artifact_of(done, candidate, served),
        conditions=list(CONDITIONS),
        table=[ReportRow.model_validate(row._asdict()) for row in condition_rows(measurements)],
        attribution=parts,
        attribution_line=line,
        gates=judgement.gates,
        caveats=_caveats(benchmark, spec, served),
        candidates=_candidates(done, candidate),
        paired=paired_differences(scores, measurements),
        protocol=protocol(done, candidate, spec, speed),
        formulas=list(FORMULAS),
        environment=environment + [fact for fact in tools if fact.name not in known],
        speed=speed,
        measurements=measurements,
        stages=[_stage(call, result) for call, result in done],
        sources=[
            SourceRecord(
                name=source,
                uri=pin["uri"],
                revision=pin.get("revision", ""),
                digest=pin["digest"],
            )
            for source, pin in sources.items()
        ],
        spec=dict(spec),
        served=served,
    )


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


def _served(done: Sequence[tuple[StageCall, StageResult]], candidate: str) -> str:
    """The condition that a candidate would serve; quantized while it is not known."""
    parents = [c.parents for c, _ in done if c.stage is Stage.EVALUATE and c.candidate == candidate]
    return MERGED if parents and QUANTIZED not in parents[-1] else QUANTIZED


def _caveats(benchmark: Mapping[str, Any], spec: Mapping[str, Any], served: str) -> list[str]:
    caveats = [NOT_QUANTIZED] if served == MERGED else []
    if spec and spec["quantization"].get("candidates"):
        caveats.append(HALVES)
    if benchmark.get("accelerator") == NO_ACCELERATOR:
        caveats.append(CPU_ONLY)
    if benchmark.get("runtime") == Runtime.TRANSFORMERS and max(_concurrencies(benchmark)) > 1:
        caveats.append(ONE_AT_A_TIME)
    if benchmark.get("runtime") == Runtime.VLLM and benchmark.get("accelerator") == NO_ACCELERATOR:
        caveats.append(PREALLOCATED)
    if not benchmark:
        why = "the model was rejected on quality before" if spec else "there is no benchmark.json"
        caveats.append(f"Speed was not measured: {why}.")
    return caveats


def _concurrencies(benchmark: Mapping[str, Any]) -> list[int]:
    return benchmark.get("concurrency") or [1]


def _candidates(done: Sequence[tuple[StageCall, StageResult]], chosen: str) -> list[CandidateRow]:
    """Every recipe that was tried, in order, with what decides between them."""
    rows = []
    for call, result in done:
        if call.stage is Stage.EVALUATE:
            served = _served(done, call.candidate)
            rows.append(
                CandidateRow(
                    name=call.candidate,
                    perplexity=result.measurements.get(TASK_PERPLEXITY, {}).get(served, ""),
                    weights_bytes=result.measurements.get(WEIGHTS_BYTES, {}).get(served, ""),
                    digest=artifact_of(done, call.candidate, served),
                    chosen=call.candidate == chosen,
                    served=served,
                )
            )
    return rows


def _stage(call: StageCall, result: StageResult) -> StageRecord:
    return StageRecord(
        stage=call.stage.value,
        candidate=call.candidate,
        input_hash=call.input_hash,
        parameters=call.parameters,
        parents=call.parents,
        digest=result.digest,
        message=result.message,
        notes=result.notes,
        seconds=result.seconds,
        accelerator_seconds=result.accelerator_seconds,
    )
