"""A quantization that changes nothing."""

from fake_stages.fakework import began, made
from lora_api.jobcontract import StageResult
from lora_jobs.context import StageContext


def run(context: StageContext) -> StageResult:
    """Reads the merged model and the calibration set, as the real one does."""
    began(context)
    merged = context.inputs.artifact(context.request.call.parents["merged"])
    return made(context, merged=merged, calibration=context.inputs.source("calibration0"))
