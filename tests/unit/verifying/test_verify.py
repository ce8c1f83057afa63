"""A pod that is not what was measured is never let through."""

import json
from functools import partial
from pathlib import Path

import httpx
import pytest

from fake_engine import Script
from fake_transport import FakeTransport
from lora_api import layout
from lora_api.jobcontract import (
    Endpoint,
    Reason,
    Release,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_api.runtimes import RECIPES, Runtime, RuntimeRecipe
from lora_jobs import verifying
from lora_jobs.benchmarking.client import Ask, CompletionClient
from lora_jobs.benchmarking.expectations import Expectation, Expectations, expectation_of
from lora_jobs.benchmarking.prompts import Prompt
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused, Waiting
from lora_jobs.outputs import StoreOutputs
from lora_jobs.stages import verify as stage
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.verifying import Expected, verify

MEASURED = Script(says="good", models=["demo"])
QUESTIONS = [Prompt(f"w{i} w{i + 1}", (i, i + 1)) for i in range(4)]
PODS = [Endpoint(pod=f"demo-{i}", url=f"http://pod{i}") for i in range(2)]


def pods(**scripts: Script) -> verifying.NewClient:
    """Engines by host; those that are not named behave as measured."""

    def client(url: str, recipe: RuntimeRecipe) -> CompletionClient:
        script = scripts.get(httpx.URL(url).host, MEASURED)
        return CompletionClient(url, recipe, FakeTransport(script))

    return client


@pytest.fixture
async def recorded() -> list[Expectation]:
    """What the measured engine answers, asked twice."""
    found = []
    for question in QUESTIONS:
        async with pods()("http://any", RECIPES[Runtime.TRANSFORMERS]) as client:
            said = [(await client.complete(Ask("demo", 16), question)).pieces for _ in range(2)]
        expectation = expectation_of(question.text, question.token_ids, said, {})
        assert expectation is not None
        found.append(expectation)
    return found


def expected(prompts: list[Expectation], runtime: Runtime = Runtime.TRANSFORMERS) -> Expected:
    return Expected("demo", RECIPES[runtime], Expectations(artifact="sha256:q", prompts=prompts))


def test_pods_that_answer_as_recorded_pass(recorded: list[Expectation]) -> None:
    assert "4 recorded answers repeated by 2 pods" in verify(
        PODS, expected(recorded), lambda _: None, pods()
    )


def test_one_pod_that_answers_otherwise_is_named(recorded: list[Expectation]) -> None:
    with pytest.raises(Refused, match="pod demo-1 answers 'bad") as refused:
        verify(PODS, expected(recorded), lambda _: None, pods(pod1=Script(says="bad")))
    assert refused.value.reason is Reason.VERIFICATION_FAILED


def test_an_answer_that_parts_late_is_another_answer(recorded: list[Expectation]) -> None:
    late = [e.model_copy(update={"answer": e.answer[:-3] + "xy "}) for e in recorded[:1]]
    with pytest.raises(Refused, match="pod demo-0"):
        verify(PODS, expected(late + recorded[1:]), lambda _: None, pods())


def test_another_tokenizer_is_refused(recorded: list[Expectation]) -> None:
    with pytest.raises(Refused, match="its tokenizer is another one"):
        verify(PODS, expected(recorded), lambda _: None, pods(pod0=Script(prompt_tokens=99)))


def test_without_repeatable_prompts_nothing_passes(recorded: list[Expectation]) -> None:
    for few in ([], recorded[:1]):
        with pytest.raises(Refused, match="repeatable") as refused:
            verify(PODS, expected(few), lambda _: None, pods())
        assert refused.value.reason is Reason.VERIFICATION_FAILED


def test_answers_that_the_base_model_gives_as_well_prove_nothing(
    recorded: list[Expectation],
) -> None:
    told = expected(recorded)
    blind = told.expectations.model_copy(update={"compared_with": ["base", "merged"]})
    with pytest.raises(Refused, match="only 0 of the recorded answers"):
        verify(PODS, Expected("demo", told.recipe, blind), lambda _: None, pods())
    seeing = [e.model_copy(update={"distinguishes": ["base"]}) for e in recorded[:2]]
    told = expected([*seeing, *recorded[2:]])
    assert "4 recorded answers" in verify(PODS, told, lambda _: None, pods())


def test_no_pod_is_no_pass(recorded: list[Expectation]) -> None:
    with pytest.raises(Waiting, match="no ready pod"):
        verify([], expected(recorded), lambda _: None, pods())


@pytest.mark.parametrize("trouble", [Script(dies_on_request="refused"), Script(status=503)])
def test_a_pod_that_does_not_answer_is_waited_for(
    recorded: list[Expectation], trouble: Script
) -> None:
    with pytest.raises(Waiting, match="pod demo-0 does not answer") as waiting:
        verify(PODS, expected(recorded), lambda _: None, pods(pod0=trouble))
    assert waiting.value.reason is Reason.ENGINE_FAILED


def test_a_pod_that_serves_another_name_is_refused(recorded: list[Expectation]) -> None:
    served_as = Script(says="good", models=["other"])
    with pytest.raises(Refused, match="serves other where demo"):
        verify(PODS, expected(recorded, Runtime.VLLM), lambda _: None, pods(pod0=served_as))
    answers_as = Script(says="good", model="other@main")
    with pytest.raises(Refused, match="answers as 'other@main'"):
        verify(PODS, expected(recorded), lambda _: None, pods(pod0=answers_as))


def context(folder: Path, recorded: list[Expectation] | None, artifact: str) -> StageContext:
    """A request for the artifact `q`, over a store that holds what `artifact` answered."""
    release = Release(
        id="01234567", artifact="sha256:" + "a" * 64,
        recipe={"runtime": "Transformers", "image": "", "accelerator": "None", "modelName": "demo"},
    )  # fmt: skip
    call = StageCall(stage=Stage.VERIFY, parents={"quantized": "sha256:q", "benchmark": "sha256:b"})
    outputs = StoreOutputs(DirectoryStore(folder / "store"))
    if recorded is not None:
        document = {"expectations": Expectations(artifact=artifact, prompts=recorded).to_json()}
        file = folder / "samples.json"
        file.write_text(json.dumps(document))
        outputs.put_file(layout.samples("sha256:b"), file, "application/json")
    request = StageRequest(
        call=call, release=release, endpoints=PODS,
        run=RunReference(namespace="team", name="demo", uid="u"),
        store=StoreReference(uri="file:///store", scope="team"),
    )  # fmt: skip
    return StageContext(request, _NoInputs(), outputs, folder, lambda _: None)


class _NoInputs:
    def source(self, name: str) -> Path:
        raise AssertionError("verify reads no source")

    def artifact(self, digest: str) -> Path:
        raise AssertionError("verify reads no artifact")


def test_the_stage_compares_with_what_the_benchmark_of_this_artifact_recorded(
    tmp_path: Path, recorded: list[Expectation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "verify", partial(verify, new_client=pods()))
    result = stage.run(context(tmp_path, recorded, "sha256:q"))
    assert result.stage is Stage.VERIFY
    assert "repeated by 2 pods" in result.message


def test_answers_of_another_artifact_prove_nothing(
    tmp_path: Path, recorded: list[Expectation]
) -> None:
    with pytest.raises(Refused, match="not from sha256:q") as refused:
        stage.run(context(tmp_path, recorded, "sha256:other"))
    assert refused.value.reason is Reason.DIGEST_MISMATCH


def test_a_record_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Waiting, match=r"the store has no samples/b\.json"):
        stage.run(context(tmp_path, None, ""))
