"""Canned quality: of a good model, or worse by FAKE_STAGES_WORSE at groups above 32."""

import json
import os

from builders import measurements
from fake_stages.fakework import began, measured
from lora_api.jobcontract import StageResult
from lora_jobs.context import StageContext


def run(context: StageContext) -> StageResult:
    """The group size is read from the quantized artifact."""
    began(context)
    folder = context.inputs.artifact(context.request.call.parents["quantized"])
    group_size = json.loads((folder / "config.json").read_text())["parameters"]["groupSize"]
    worse = float(os.environ.get("FAKE_STAGES_WORSE", "1")) if group_size > 32 else 1
    return measured(context, measurements(task_ratio=1.01 * worse)[0])
