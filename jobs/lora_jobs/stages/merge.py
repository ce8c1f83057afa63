"""Stage merge: base and adapters into the merged model, an intermediate artifact."""

from lora_api.jobcontract import StageResult
from lora_api.parameters import MergeParameters
from lora_jobs.context import StageContext
from lora_jobs.merging import merge_adapters


def run(context: StageContext) -> StageResult:
    """Merge and publish.

    Raises:
        Refused: An adapter does not belong to the base, is a variant that is not merged, or cannot
            be summed with the others.
    """
    call = context.request.call
    folder = context.work / "merged"
    parameters = MergeParameters.model_validate(call.parameters)
    adapters = [
        (context.inputs.source(name), parameters.weight(index))
        for index, name in enumerate(sorted(n for n in call.parents if n.startswith("adapter")))
    ]
    base, weights = context.inputs.source("base"), parameters.base_weights
    report = merge_adapters(base, adapters, folder, context.progress, weights)
    return StageResult(
        stage=call.stage,
        input_hash=call.input_hash,
        digest=context.outputs.publish_artifact(folder, report.files),
        notes=dict(report.notes),
        message=report.message,
    )
