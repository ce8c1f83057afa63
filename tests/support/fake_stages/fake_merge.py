"""A merge that merges nothing."""

from fake_stages.fakework import began, made
from lora_api.jobcontract import StageResult
from lora_jobs.context import StageContext


def run(context: StageContext) -> StageResult:
    """Reads base and adapter, as the real one does."""
    began(context)
    return made(
        context, base=context.inputs.source("base"), adapter=context.inputs.source("adapter0")
    )
