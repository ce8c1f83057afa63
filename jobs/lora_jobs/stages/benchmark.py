"""Stage benchmark: speed and memory of base, dynamic, merged and quantized in the serving engine.

For method None there is no quantized model among the parents: merged is what serves, and is paired
with base.

Raw samples and the answers that `verify` asks for again go to `layout.samples(input hash)`.
"""

import json
import time
from pathlib import Path

from lora_api import layout
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED
from lora_api.gates import percent as fraction_of
from lora_api.jobcontract import StageResult
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import NO_ACCELERATOR
from lora_api.times import seconds_of
from lora_jobs.benchmarking.blocks import served_of
from lora_jobs.benchmarking.conditions import Condition
from lora_jobs.benchmarking.environment import environment
from lora_jobs.benchmarking.protocol import Limits, benchmark
from lora_jobs.benchmarking.results import (
    BenchmarkRun,
    expectations_of,
    measurements_of,
    notes_of,
    samples_of,
)
from lora_jobs.context import StageContext

DEFAULT_MAX_DURATION = "2h"


def run(context: StageContext) -> StageResult:
    """Measure, keep the samples, report the rows.

    Raises:
        Refused: The engine cannot serve base, merged or quantized.
    """
    call, began = context.request.call, time.monotonic()
    parameters = BenchmarkParameters.model_validate(call.parameters)
    limits = Limits(
        precision=float(fraction_of(parameters.precision)),
        max_duration_seconds=seconds_of(
            context.request.limits.get("maxDuration", DEFAULT_MAX_DURATION)
        ),
    )
    facts = environment(parameters.runtime, parameters.accelerator, parameters.product)
    conditions = _conditions(context)
    done = benchmark(conditions, parameters, limits, context.work, context.progress)
    expectations = expectations_of(done, artifact=call.parents[served_of(call.parents)])
    file = context.work / "samples.json"
    file.write_text(json.dumps(samples_of(done, expectations, facts), separators=(",", ":")))
    context.outputs.put_file(layout.samples(call.input_hash), file, "application/json")
    seconds = round(time.monotonic() - began)
    notes = notes_of(done, limits.precision, facts)
    notes["verifyPrompts"] = (
        f"{len(expectations.prompts)} of {len(done.work.questions)} answers repeatable, "
        f"{len(expectations.telling)} of them not the base model's"
    )
    return StageResult(
        stage=call.stage,
        input_hash=call.input_hash,
        measurements=measurements_of(done),
        notes=notes,
        message=_headline(done, notes),
        seconds=seconds,
        accelerator_seconds=0 if parameters.accelerator == NO_ACCELERATOR else seconds,
    )


def _conditions(context: StageContext) -> list[Condition]:
    parents = context.request.call.parents
    adapters: list[Path] = [
        context.inputs.source(name) for name in sorted(parents) if name.startswith("adapter")
    ]
    base = context.inputs.source(BASE)
    conditions = [
        Condition(BASE, base),
        Condition(DYNAMIC, base, tuple(adapters)),
        Condition(MERGED, context.inputs.artifact(parents[MERGED])),
    ]
    if quantized := parents.get(QUANTIZED):
        conditions.append(Condition(QUANTIZED, context.inputs.artifact(quantized)))
    return conditions


def _headline(done: BenchmarkRun, notes: dict[str, str]) -> str:
    invalid = [name.removeprefix("invalid/") for name in notes if name.startswith("invalid/")]
    if invalid:
        return f"no valid run of {', '.join(invalid)}: {notes[f'invalid/{invalid[0]}']}"[:500]
    return f"{notes['device']}, {len(done.processes)} engine processes, {notes['precision']}"[:500]
