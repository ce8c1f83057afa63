"""The client measures exactly what the engine did, and refuses what is no measurement."""

import json
from contextlib import nullcontext

import httpx
import pytest

from fake_engine import Script
from fake_transport import FakeTransport, VirtualClock
from lora_api.runtimes import RECIPES, Runtime
from lora_jobs.benchmarking.client import Ask, CompletionClient, InvalidRun, request_body
from lora_jobs.benchmarking.metrics import RequestTrace, is_burst
from lora_jobs.benchmarking.prompts import Prompt

PROMPT = Prompt("a b c d", (5, 6, 7, 8))
TRANSFORMERS, VLLM = RECIPES[Runtime.TRANSFORMERS], RECIPES[Runtime.VLLM]


async def ask(script: Script, tokens: int = 16, locked: bool = True) -> RequestTrace:
    clock = VirtualClock()
    transport = FakeTransport(script, clock)
    async with CompletionClient("http://engine", TRANSFORMERS, transport, clock) as client:
        return await client.complete(Ask("model", tokens, locked), PROMPT)


async def test_known_delays_are_recovered() -> None:
    trace = await ask(Script(first_token_s=0.123, gap_s=0.0071))
    assert trace.time_to_first_token_ms == pytest.approx(123)
    assert trace.time_per_output_token_ms == pytest.approx(7.1)
    assert trace.output_tokens == 16


async def test_a_chunk_without_output_is_no_first_token() -> None:
    # The fake engine always begins with one, at once.
    assert (await ask(Script(first_token_s=0.5))).time_to_first_token_ms == pytest.approx(500)


async def test_an_early_end_makes_the_run_invalid() -> None:
    with pytest.raises(InvalidRun, match="wrote 5 tokens instead of 16"):
        await ask(Script(stops_after=5))


async def test_an_early_end_is_allowed_where_no_length_is_asked_for() -> None:
    assert (await ask(Script(stops_after=5), locked=False)).output_tokens == 5


async def test_tokens_in_one_write_are_seen_as_a_burst() -> None:
    assert is_burst(await ask(Script(burst=True)))
    assert not is_burst(await ask(Script()))


async def test_another_tokenizer_makes_the_run_invalid() -> None:
    with pytest.raises(InvalidRun, match="9 prompt tokens instead of 4"):
        await ask(Script(prompt_tokens=9))


async def test_an_engine_that_does_not_count_is_refused() -> None:
    with pytest.raises(InvalidRun, match="no usage"):
        await ask(Script(counts=False))


async def test_an_error_answer_is_no_measurement() -> None:
    with pytest.raises(InvalidRun, match="answered 404"):
        await ask(Script(status=404))


async def test_an_engine_that_is_gone_raises_a_transport_error() -> None:
    with pytest.raises(httpx.TransportError):
        await ask(Script(dies_on_request="gone"))


async def test_a_closed_loop_asks_every_prompt_once_and_keeps_their_order() -> None:
    clock = VirtualClock()
    transport = FakeTransport(Script(), clock)
    prompts = [Prompt(f"p{i} x", (i, i)) for i in range(7)]
    async with CompletionClient("http://engine", TRANSFORMERS, transport, clock) as client:
        traces = await client.closed_loop(Ask("model", 4), prompts, concurrency=3)
    asked = [request["prompt"] for request in transport.model.requests]
    assert sorted(asked) == sorted(p.text for p in prompts)
    own = {p: t for p, t in zip(asked, transport.model.requests, strict=True)}
    assert len(own) == len(traces) == 7
    assert len({t.text for t in traces}) > 1


def test_each_engine_is_asked_in_its_own_words() -> None:
    vllm = request_body(VLLM, Ask("adapter", 9), PROMPT)
    assert vllm["prompt"] == [5, 6, 7, 8]
    assert vllm["ignore_eos"] is True
    assert vllm["min_tokens"] == vllm["max_tokens"] == 9
    transformers = request_body(TRANSFORMERS, Ask("model", 9), PROMPT)
    assert transformers["prompt"] == "a b c d"
    assert json.loads(transformers["generation_config"]) == {
        "do_sample": False, "min_new_tokens": 9, "max_new_tokens": 9,
    }  # fmt: skip
    assert "generation_config" not in request_body(TRANSFORMERS, Ask("m", 9, False), PROMPT)


@pytest.mark.parametrize(("share", "is_kept"), [(0.69, True), (0.71, False)])
async def test_a_client_that_is_the_bottleneck_makes_the_run_invalid(
    share: float, is_kept: bool
) -> None:
    clock = VirtualClock()
    transport = FakeTransport(Script(), clock)
    async with CompletionClient(
        "http://engine", TRANSFORMERS, transport, clock, cpu_clock=lambda: clock.now * share
    ) as client:
        with nullcontext() if is_kept else pytest.raises(InvalidRun, match="71% of a core"):
            await client.closed_loop(Ask("model", 8), [PROMPT] * 2, concurrency=1)
        # Its first, slow steps are warm-up and say nothing.
        assert await client.closed_loop(Ask("model", 8), [PROMPT], 1, is_timed=False)
