"""Stage merge: base and adapter into the merged model, an intermediate artifact."""

from lora_api.jobcontract import StageResult
from lora_jobs.context import StageContext
from lora_jobs.merging import merge_adapter


def run(context: StageContext) -> StageResult:
    """Merge and publish.

    Raises:
        Refused: The adapter does not belong to the base, or is a variant that is not merged.
    """
    call = context.request.call
    folder = context.work / "merged"
    report = merge_adapter(
        context.inputs.source("base"), context.inputs.source("adapter0"), folder, context.progress
    )
    return StageResult(
        stage=call.stage,
        input_hash=call.input_hash,
        digest=context.outputs.publish_artifact(folder),
        notes=dict(report.notes),
        message=report.message,
    )
