"""Whether the engines that are to serve give the answers that were recorded when it was measured.

Every pod is asked every recorded prompt, greedily; its answer must begin as the recorded one. Only
prompts count whose answer was repeatable then (`benchmarking.expectations`), so a difference is
another model, another tokenizer or another numeric path, and no accident.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from lora_api.jobcontract import Endpoint, Progress, Reason
from lora_api.runtimes import RuntimeRecipe
from lora_jobs.benchmarking.client import Ask, CompletionClient, InvalidRun, ServerError
from lora_jobs.benchmarking.expectations import Expectation, Expectations
from lora_jobs.benchmarking.metrics import RequestTrace
from lora_jobs.benchmarking.prompts import Prompt
from lora_jobs.context import ReportProgress
from lora_jobs.errors import Refused, Waiting

MIN_PROMPTS = 2
"""Fewer repeatable answers that the base model does not give prove nothing."""
_SHOWN = 40
_REVISION = "@"
"""`transformers serve` answers under `name@revision`."""

NewClient = Callable[[str, RuntimeRecipe], CompletionClient]


@dataclass(frozen=True)
class Expected:
    """What the pods of a release must do.

    Attributes:
        model: The name under which they serve.
        recipe: The engine.
        expectations: The recorded answers.
    """

    model: str
    recipe: RuntimeRecipe
    expectations: Expectations


def verify(
    endpoints: Sequence[Endpoint],
    expected: Expected,
    progress: ReportProgress,
    new_client: NewClient = CompletionClient,
) -> str:
    """Ask every pod; returns one line that says what was compared.

    Raises:
        Refused: A pod answers otherwise, or there is nothing repeatable to compare with.
        Waiting: A pod does not answer, or there is none.
    """
    prompts, telling = expected.expectations.prompts, expected.expectations.telling
    if len(telling) < MIN_PROMPTS:
        raise Refused(
            Reason.VERIFICATION_FAILED,
            f"only {len(telling)} of the recorded answers were repeatable and not the base model's "
            f"too; at least {MIN_PROMPTS} are needed to tell one model from another; measure again "
            "(spec.benchmark.rerun)",
        )
    if not endpoints:
        raise Waiting(Reason.ENGINE_FAILED, "the release has no ready pod to ask")
    for done, endpoint in enumerate(endpoints):
        told = Progress(done=done, total=len(endpoints), unit="pods", message=endpoint.pod)
        progress(told)
        asyncio.run(_verify_pod(endpoint, expected, new_client))
    return f"{len(prompts)} recorded answers repeated by {len(endpoints)} pods"


async def _verify_pod(endpoint: Endpoint, expected: Expected, new_client: NewClient) -> None:
    try:
        async with new_client(endpoint.url, expected.recipe) as client:
            await _check_name(client, endpoint, expected)
            for recorded in expected.expectations.prompts:
                await _check_answer(client, endpoint, expected, recorded)
    except (httpx.TransportError, httpx.HTTPStatusError, ServerError) as error:
        why = str(error) or type(error).__name__
        raise Waiting(
            Reason.ENGINE_FAILED, f"pod {endpoint.pod} does not answer at {endpoint.url}: {why}"
        ) from error
    except InvalidRun as invalid:
        raise Refused(
            Reason.VERIFICATION_FAILED, f"pod {endpoint.pod} answers wrongly: {invalid}"
        ) from invalid


async def _check_name(client: CompletionClient, endpoint: Endpoint, expected: Expected) -> None:
    if expected.recipe.lists_models:
        served = await client.served_models()
        if served != [expected.model]:
            raise _refused(endpoint, f"serves {', '.join(served) or 'no model'}", expected.model)


async def _check_answer(
    client: CompletionClient, endpoint: Endpoint, expected: Expected, recorded: Expectation
) -> None:
    ask = Ask(expected.model, expected.expectations.answer_tokens)
    trace: RequestTrace = await client.complete(
        ask, Prompt(recorded.prompt, tuple(recorded.token_ids))
    )
    if trace.model.partition(_REVISION)[0] != expected.model:
        raise _refused(endpoint, f"answers as {trace.model!r}", expected.model)
    if not trace.text.startswith(recorded.answer):
        raise _refused(endpoint, f"answers {trace.text[:_SHOWN]!r}", repr(recorded.answer[:_SHOWN]))


def _refused(endpoint: Endpoint, seen: str, wanted: str) -> Refused:
    return Refused(
        Reason.VERIFICATION_FAILED,
        f"pod {endpoint.pod} {seen} where {wanted} was recorded when this artifact was measured; "
        "it is not the engine and model that passed",
    )
