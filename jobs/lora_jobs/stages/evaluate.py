"""Stage evaluate: quality of base, dynamic, merged and quantized on the evaluation sets.

For method None there is no quantized model among the parents, and no such condition.

The NLL of every window goes to `layout.samples(input hash)`, for the report.
"""

import json
from pathlib import Path
from typing import Any

from lora_api import layout
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED
from lora_api.jobcontract import StageResult
from lora_api.parameters import EvaluateParameters
from lora_api.spec import LossOn
from lora_jobs.context import StageContext
from lora_jobs.datasets.overlap import refuse_overlap
from lora_jobs.datasets.questions import questions_of
from lora_jobs.datasets.records import RecordSet, read_records
from lora_jobs.evaluating.comparisons import comparisons_of
from lora_jobs.evaluating.distributions import DISTRIBUTIONS, agreement_rows, distributions_look
from lora_jobs.evaluating.freerunning import (
    FREE_RUNNING,
    free_running_looks,
    length_note,
    length_rows,
)
from lora_jobs.evaluating.measure import EvaluationSet, Look, Subject, measure
from lora_jobs.evaluating.passing import PASSING, check_expected, pass_rows, passing_look
from lora_jobs.evaluating.scores import ANSWER_LENGTHS, Score, measurements_of, scores_document
from lora_jobs.evaluating.sets import evaluation_set, protocol_of
from lora_jobs.pretrained import compute_dtype, load_tokenizer

TASK, GENERAL = "task", "general"


def run(context: StageContext) -> StageResult:
    """Measure what is not in the store yet; report all.

    Raises:
        Refused: A set is empty or cannot be read, or shares records with the calibration set.
    """
    call = context.request.call
    parameters = EvaluateParameters.model_validate(call.parameters)
    records = _records(context, parameters)
    refuse_leaks(context, records)
    subjects = _subjects(context, parameters)
    merged = next(s for s in subjects if s.condition == MERGED).folders[0]
    dtype = compute_dtype(merged)
    sets = _sets(context, records, parameters, merged, dtype)
    looks = [
        distributions_look(sets[0]),
        *_passing(records[0], parameters, sets[0], merged),
        *free_running_looks(records[0], load_tokenizer(merged), sets[0].key),
    ]
    evaluation = measure(subjects, sets, dtype, context.outputs, context.progress, looks)
    file = context.work / "scores.json"
    file.write_text(json.dumps(scores_document(evaluation.scores), separators=(",", ":")))
    context.outputs.put_file(layout.samples(call.input_hash), file, "application/json")
    notes = evaluation.notes | {
        f"{s.name}Set": f"{s.document_count} documents, {s.scored_tokens} tokens scored"
        for s in sets
    }
    if lengths := length_note(evaluation.looked.get(FREE_RUNNING, {})):
        notes[ANSWER_LENGTHS] = lengths
    return StageResult(
        stage=call.stage,
        input_hash=call.input_hash,
        measurements=measurements_of(evaluation.scores, evaluation.weights_bytes)
        | comparisons_of(evaluation.scores)
        | agreement_rows(evaluation.looked[DISTRIBUTIONS])
        | pass_rows(evaluation.looked.get(PASSING, {}))
        | length_rows(evaluation.looked.get(FREE_RUNNING, {})),
        notes=notes | {"reusedScores": f"{evaluation.reused} of {len(evaluation.scores)}"},
        message=_headline(evaluation.scores),
        accelerator_seconds=round(evaluation.accelerator_seconds),
    )


def refuse_leaks(context: StageContext, evaluation: list[RecordSet]) -> None:
    """Let evaluation sets pass that share no record with the calibration set.

    The calibration sources are no parents of this stage: they are looked at, and decide nothing
    that is measured.

    Raises:
        Refused: They share records.
        LookupError: The request does not name the calibration sources, so nobody would check.
    """
    names = sorted(n for n in context.request.sources if n.startswith("calibration"))
    is_quantized = QUANTIZED in context.request.call.parents
    if not names and is_quantized:
        raise LookupError("the request names no calibration source to check the sets against")
    calibration = [read_records(context.inputs.source(name), name=name) for name in names]
    for records in evaluation:
        refuse_overlap(calibration, records)


def _records(context: StageContext, parameters: EvaluateParameters) -> list[RecordSet]:
    formats = {TASK: parameters.task_format, GENERAL: parameters.general_format}
    return [
        read_records(context.inputs.source(name), record_format, name)
        for name, record_format in formats.items()
        if name in context.request.call.parents
    ]


def _subjects(context: StageContext, parameters: EvaluateParameters) -> list[Subject]:
    parents = context.request.call.parents
    adapters = sorted(n for n in parents if n.startswith("adapter"))
    base, merged = parents[BASE], parents[MERGED]
    dynamic = ("base", *adapters)
    folders = {name: context.inputs.source(name) for name in dynamic}
    subjects = [
        Subject(BASE, (folders["base"],), (base,)),
        Subject(
            DYNAMIC,
            tuple(folders[n] for n in dynamic),
            tuple(parents[n] for n in dynamic),
            parameters.adapter_weights,
        ),
        Subject(MERGED, (context.inputs.artifact(merged),), (merged,)),
    ]
    if quantized := parents.get(QUANTIZED):
        subjects.append(Subject(QUANTIZED, (context.inputs.artifact(quantized),), (quantized,)))
    return subjects


def _sets(
    context: StageContext,
    records: list[RecordSet],
    parameters: EvaluateParameters,
    merged: Path,
    dtype: str,
) -> list[EvaluationSet]:
    tokenizer: Any = load_tokenizer(merged)
    protocol = protocol_of(merged, tokenizer, dtype, parameters.context_length)
    loss_on = {TASK: parameters.loss_on, GENERAL: LossOn.COMPLETIONS}
    parents = context.request.call.parents
    return [
        evaluation_set(r.name, r, parents[r.name], loss_on[r.name], tokenizer, protocol)
        for r in records
    ]


def _passing(
    records: RecordSet, parameters: EvaluateParameters, task: EvaluationSet, merged: Path
) -> list[Look]:
    if parameters.scorer is None:
        return []
    tokenizer: Any = load_tokenizer(merged)
    questions = questions_of(records, tokenizer)
    check_expected(parameters.scorer, questions)
    return [passing_look(parameters.scorer, questions, tokenizer, task.key)]


def _headline(scores: list[Score]) -> str:
    on_task = [f"{s.condition} {s.perplexity:.4g}" for s in scores if s.set_name == TASK]
    return f"task perplexity: {', '.join(on_task)}"
