"""Stage verify: every ready pod of a candidate gives the answers that its benchmark recorded.

A probe without torch: it holds no model, it asks the engines that hold it.
"""

from lora_api import layout
from lora_api.gates import QUANTIZED
from lora_api.jobcontract import Reason, Stage, StageResult
from lora_api.parameters import ServingRecipe
from lora_api.runtimes import RECIPES
from lora_jobs.benchmarking.expectations import Expectations
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused, Waiting
from lora_jobs.verifying import Expected, verify


def run(context: StageContext) -> StageResult:
    """Compare every endpoint of the request with the recorded answers.

    Raises:
        Refused: A pod answers otherwise, or nothing repeatable was recorded.
        Waiting: A pod does not answer, or the record has gone from the store.
    """
    request, call = context.request, context.request.call
    if request.release is None:
        raise Refused(Reason.INVALID_INPUT, "verify needs a release in its request")
    recipe = ServingRecipe.model_validate(request.release.recipe)
    expected = Expected(recipe.model_name, RECIPES[recipe.runtime], _expectations(context))
    message = verify(request.endpoints, expected, context.progress)
    return StageResult(
        stage=call.stage,
        input_hash=call.input_hash,
        digest=request.release.artifact,
        message=message,
    )


def _expectations(context: StageContext) -> Expectations:
    """What the benchmark of this very artifact recorded.

    Raises:
        Waiting: It is not in the store.
        Refused: It is another artifact's.
    """
    parents = context.request.call.parents
    key = layout.samples(parents[Stage.BENCHMARK])
    document = context.outputs.get_json(key)
    if document is None:
        raise Waiting(
            Reason.SOURCE_NOT_FOUND,
            f"the store has no {key}, where the benchmark recorded its answers; "
            "measure again (spec.benchmark.rerun)",
        )
    expectations = Expectations.model_validate(document.get("expectations"))
    if expectations.artifact != parents[QUANTIZED]:
        raise Refused(
            Reason.DIGEST_MISMATCH,
            f"{key} was recorded from {expectations.artifact}, not from {parents[QUANTIZED]}",
        )
    return expectations
