"""A report of one line."""

from fake_stages.fakework import began
from lora_api import layout
from lora_api.jobcontract import StageResult
from lora_jobs.context import StageContext


def run(context: StageContext) -> StageResult:
    """Writes report.html where the real one does."""
    began(context)
    request = context.request
    assert request.judgement is not None
    file = context.work / "report.html"
    file.write_text(request.judgement.verdict)
    uri = context.outputs.put_file(
        f"{layout.report(request.run_id, 'gates')}/report.html", file, "text/html"
    )
    return StageResult(stage=request.call.stage, input_hash=request.call.input_hash, report_uri=uri)
