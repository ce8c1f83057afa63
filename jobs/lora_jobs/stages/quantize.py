"""Stage quantize: the merged model and the calibration sets into a quantized artifact."""

from lora_api import layout
from lora_api.jobcontract import StageResult
from lora_api.parameters import QuantizeParameters
from lora_api.spec import RecordFormat
from lora_jobs.context import StageContext
from lora_jobs.datasets.overlap import refuse_overlap
from lora_jobs.datasets.records import RecordSet, read_records
from lora_jobs.quantizing.checkpoints import Mirror
from lora_jobs.quantizing.lowbits import quantize_model
from lora_jobs.quantizing.rows import rows_for_model
from lora_jobs.termination import longer_grace

CALIBRATION = "calibration"
EVALUATION_SETS = ("task", "general")
GRACE_SECONDS = 25.0
"""After SIGTERM, to finish a short layer and to store its checkpoint."""


def run(context: StageContext) -> StageResult:
    """Quantize and publish.

    Raises:
        Refused: The calibration set is empty, too small or shares records with an evaluation set,
            or the model cannot be quantized.
    """
    call = context.request.call
    parameters = QuantizeParameters.model_validate(call.parameters)
    model = context.inputs.artifact(call.parents["merged"])
    sources = calibration_sets(context, parameters.format)
    _refuse_leaks(context, sources)
    rows = rows_for_model(
        model,
        sources,
        samples=parameters.samples,
        sequence_length=parameters.sequence_length,
        seed=parameters.seed,
        weights=parameters.weights,
    )
    folder = context.work / "quantized"
    kept = context.work / "checkpoint"
    place = context.outputs.below(layout.checkpoint(call.stage, call.input_hash))
    with longer_grace(GRACE_SECONDS), Mirror(kept, place):
        report = quantize_model(
            model,
            rows,
            folder,
            method=parameters.method,
            bits=parameters.bits,
            group_size=parameters.group_size,
            damping=parameters.damping,
            progress=context.progress,
            checkpoint=kept,
        )
        digest = context.outputs.publish_artifact(folder)
    return StageResult(
        stage=call.stage,
        input_hash=call.input_hash,
        digest=digest,
        measurements=report.measurements(),
        notes=report.notes(),
        message=report.message()[:512],
        accelerator_seconds=0 if report.device == "cpu" else round(report.seconds),
    )


def calibration_sets(context: StageContext, record_format: RecordFormat) -> list[RecordSet]:
    """The calibration sources in the order in which the spec lists them."""
    names = [n for n in context.request.sources if n.startswith(CALIBRATION)]
    names.sort(key=lambda n: int(n.removeprefix(CALIBRATION) or 0))
    return [read_records(context.inputs.source(name), record_format, name) for name in names]


def _refuse_leaks(context: StageContext, sources: list[RecordSet]) -> None:
    """Before an accelerator works: the evaluation would refuse a shared record afterwards."""
    for name in EVALUATION_SETS:
        if name in context.request.sources:
            refuse_overlap(sources, read_records(context.inputs.source(name), name=name))
