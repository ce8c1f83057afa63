"""What the fake stages share. Their outputs depend on their inputs alone, as real ones' do."""

import json
import os
import sys
import time
from pathlib import Path

from lora_api.gates import Measurements
from lora_api.jobcontract import Progress, Reason, StageResult
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused


def began(context: StageContext) -> None:
    """Leave a trace, report progress, and fail if the test wants it."""
    stage = context.request.call.stage
    with Path(os.environ["FAKE_STAGES_LOG"]).open("a") as log:
        log.write(f"{stage} {context.request.call.candidate}".strip() + "\n")
    assert not list(context.work.iterdir()), "a stage's folder is empty at first"
    for done in range(3):
        context.progress(Progress(done=done + 1, total=3, unit="steps"))
    if os.environ.get("FAKE_STAGES_REFUSE") == stage:
        raise Refused(Reason.INVALID_INPUT, "the test wants it refused; want something else")
    if os.environ.get("FAKE_STAGES_CRASH") == stage:
        print("out of luck", file=sys.stderr)
        os._exit(7)
    if os.environ.get("FAKE_STAGES_HANG") == stage:
        print("hanging", flush=True)
        _hang(deaf=bool(os.environ.get("FAKE_STAGES_DEAF")))


def _hang(deaf: bool) -> None:
    while True:
        try:
            time.sleep(60)
        except SystemExit:
            if not deaf:  # as a long native call is
                raise


def made(context: StageContext, **inputs: Path) -> StageResult:
    """An artifact that names what it was made of."""
    call = context.request.call
    model = context.work / "model"
    model.mkdir()
    content = {
        "inputs": {k: sorted(p.name for p in v.iterdir()) for k, v in inputs.items()},
        "parents": call.parents,
        "parameters": call.parameters,
    }
    (model / "config.json").write_text(json.dumps(content, sort_keys=True))
    digest = context.outputs.publish_artifact(model)
    return StageResult(stage=call.stage, input_hash=call.input_hash, digest=digest)


def measured(context: StageContext, measurements: Measurements) -> StageResult:
    """A result of numbers."""
    call = context.request.call
    return StageResult(stage=call.stage, input_hash=call.input_hash, measurements=measurements)
