"""Asks `resolve` as the operator does, in this process."""

from pathlib import Path
from typing import Any

from lora_api.jobcontract import RunReference, Stage, StageCall, StageResult, StoreReference
from lora_api.requests import StageRequests
from lora_api.spec import parse_spec
from lora_jobs.runner import run_request


def requests_of(document: dict[str, Any]) -> StageRequests:
    """The requests of the object `team/demo` with this spec."""
    spec = parse_spec(document)
    place = spec.artifact
    return StageRequests(
        spec=spec,
        run=RunReference(namespace="team", name="demo", uid="1"),
        store=StoreReference(uri=place.uri, scope="team", connection=place.connection),
    )


RESOLVE = StageCall(stage=Stage.RESOLVE)


def resolve(document: dict[str, Any], work: Path, default_image: str = "engine:1") -> StageResult:
    """What `resolve` answers; raises what it refuses with."""
    return run_request(requests_of(document).resolve(RESOLVE, default_image), work)
