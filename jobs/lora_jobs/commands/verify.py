"""`lora-jobs verify`: does a running engine answer as the benchmark recorded? By hand."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_api.runtimes import Runtime


def verify(
    record: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="benchmark.json, or samples/<hash>.json of a store"
        ),
    ],
    url: Annotated[list[str], typer.Option(help="http://HOST:PORT of an engine; repeatable.")],
    model_name: Annotated[str, typer.Option(help="The name under which it serves.")],
    runtime: Annotated[Runtime, typer.Option(help="The engine.")] = Runtime.VLLM,
) -> None:
    """Ask engines the prompts whose answers a benchmark recorded, and compare.

    Ends with 2 when an answer differs, with 3 when an engine does not answer.
    """
    from lora_api.jobcontract import Endpoint
    from lora_api.runtimes import RECIPES
    from lora_jobs.benchmarking.expectations import Expectations
    from lora_jobs.byhand import progress_bar
    from lora_jobs.verifying import Expected
    from lora_jobs.verifying import verify as verify_endpoints

    document = json.loads(record.read_text())
    samples = document.get("samples", document)
    try:
        expectations = Expectations.model_validate(samples["expectations"])
    except (KeyError, ValueError) as error:
        raise typer.BadParameter(f"{record} holds no recorded answers: {error}") from None
    endpoints = [Endpoint(pod=one, url=one) for one in url]
    with progress_bar() as progress:
        message = verify_endpoints(
            endpoints, Expected(model_name, RECIPES[runtime], expectations), progress
        )
    print(message)
