"""Stage report: the judged run as report.json and report.html, on every verdict.

A probe: it measures nothing and reads what the stages left in the store, along the same line.
"""

from lora_api import layout
from lora_api.gates import gates_hash
from lora_api.jobcontract import Reason, Stage, StageResult
from lora_api.line import Line, walk
from lora_api.spec import parse_spec
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused, Waiting
from lora_jobs.reporting.document import report_document
from lora_jobs.reporting.render import render
from lora_jobs.store.actions import read_action
from lora_jobs.store.opening import open_store


def run(context: StageContext) -> StageResult:
    """Write the report of the request's judgement.

    Raises:
        Waiting: A measurement has gone from the store.
    """
    request = context.request
    if request.spec is None or request.judgement is None:
        raise Refused(Reason.INVALID_INPUT, "report needs a spec and a judgement in its request")
    spec = parse_spec(request.spec)
    store = open_store(request.store, request.connections)
    pins = {name: source.digest for name, source in request.sources.items()}
    # Everything that was judged was measured, with the image that the benchmark recorded.
    line = walk(
        spec, request.run.name, pins, request.default_image, lambda c: read_action(store, c)
    )
    if line.missing:
        raise Waiting(
            Reason.SOURCE_NOT_FOUND,
            f"the store no longer holds what {line.missing.stage} measured; it is measured again",
        )
    document = report_document(
        name=f"{request.run.namespace}/{request.run.name}",
        run_id=request.run_id,
        judgement=request.judgement,
        measurements=line.measurements,
        done=line.done,
        candidate=line.candidate,
        sources={name: source.to_json() for name, source in request.sources.items()},
        spec=request.spec,
        samples=_record(context, line, Stage.BENCHMARK),
        scores=_record(context, line, Stage.EVALUATE),
        provenance=_provenance(context, line),
    )
    prefix = layout.report(request.run_id, gates_hash(spec.gates, spec.overrides or ()))
    as_json, as_html = render(document, context.work / "report")
    context.outputs.put_file(f"{prefix}/{as_json.name}", as_json, "application/json")
    uri = context.outputs.put_file(f"{prefix}/{as_html.name}", as_html, "text/html; charset=utf-8")
    return StageResult(
        stage=request.call.stage,
        input_hash=request.call.input_hash,
        report_uri=uri,
        message=document.sentence[:512],
    )


def _record(context: StageContext, line: Line, stage: Stage) -> dict[str, object] | None:
    """The raw record of the last call of a measuring stage, None when there is none."""
    calls = [call for call, _ in line.done if call.stage is stage]
    return context.outputs.get_json(layout.samples(calls[-1].input_hash)) if calls else None


def _provenance(context: StageContext, line: Line) -> dict[str, str]:
    """Versions of the tools that made and measured what was judged; the last stage's win."""
    found: dict[str, str] = {}
    for call, _ in line.done:
        entry = context.outputs.get_json(layout.action(call.stage, call.input_hash)) or {}
        recorded = entry.get("provenance")
        found |= recorded if isinstance(recorded, dict) else {}
    return found
