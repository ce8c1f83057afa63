"""Requests that come at random: known delays and known queues are recovered, in virtual time."""

from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_engine import Script
from lora_api.gates import CONDITIONS
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import RECIPES, Runtime
from lora_jobs.benchmarking.client import Ask, CompletionClient, InvalidRun
from lora_jobs.benchmarking.expectations import Expectations
from lora_jobs.benchmarking.measuring import ProcessRun, Work
from lora_jobs.benchmarking.metrics import RequestTrace, percentile
from lora_jobs.benchmarking.openloop import (
    ARRIVAL_SECONDS,
    MAX_ARRIVALS,
    MIN_ARRIVALS,
    RATE_SHARE,
    OpenLoop,
    Served,
    good_per_second,
    good_share,
    open_loop,
    quantile,
)
from lora_jobs.benchmarking.prompts import Prompt
from lora_jobs.benchmarking.results import BenchmarkRun, samples_of
from lora_jobs.reporting.openloop import open_loop_record
from virtual_time import QueueTransport, loop_time, run_virtually

TOKENS = 11
SCRIPT = Script(first_token_s=0.1, gap_s=0.01)
SECONDS_EACH = 0.2
PROMPTS = [Prompt(f"p{i} x", (i, i)) for i in range(MAX_ARRIVALS)]


def new_client(script: Script, slots: int) -> CompletionClient:
    transport = QueueTransport(script, slots)
    recipe = RECIPES[Runtime.TRANSFORMERS]
    return CompletionClient("http://engine", recipe, transport, loop_time, cpu_clock=lambda: 0.0)


def arm_at(utilisation: float) -> OpenLoop:
    """Arrivals that keep an engine that answers one at a time busy for a share of the time."""
    tokens_per_second = utilisation / RATE_SHARE * TOKENS / SECONDS_EACH
    arm = open_loop(tokens_per_second, TOKENS, 1, seed=7)
    assert arm is not None
    return replace(arm, arrivals_s=arm.arrivals_s[:80])


def served_open(script: Script, slots: int, arm: OpenLoop) -> Served:
    async def ask() -> Served:
        async with new_client(script, slots) as client:
            return await client.open_loop(
                Ask("model", TOKENS), PROMPTS, arm.arrivals_s, arm.deadline_s
            )

    return run_virtually(ask())


def served_closed(script: Script, slots: int, clients: int) -> list[RequestTrace]:
    async def ask() -> list[RequestTrace]:
        async with new_client(script, slots) as client:
            return await client.closed_loop(Ask("model", TOKENS), PROMPTS[:40], clients)

    return run_virtually(ask())


def finished(served: Served) -> list[RequestTrace]:
    return [trace for trace in served if trace is not None]


def waits_s(arrivals_s: tuple[float, ...]) -> list[float]:
    """Of a queue with one server of constant time, in order (Lindley)."""
    waits, free_s = [], 0.0
    for arrival in arrivals_s:
        waits.append(max(0.0, free_s - arrival))
        free_s = arrival + waits[-1] + SECONDS_EACH
    return waits


def test_known_delays_are_recovered_where_nobody_waits() -> None:
    arm = arm_at(0.9)
    served = finished(served_open(SCRIPT, slots=MAX_ARRIVALS, arm=arm))
    assert len(served) == len(arm.arrivals_s)
    for trace, due in zip(served, arm.arrivals_s, strict=True):
        assert trace.sent_s == pytest.approx(due)
        assert trace.time_to_first_token_ms == pytest.approx(100)
        assert trace.time_per_output_token_ms == pytest.approx(10)


def test_every_request_s_wait_in_the_queue_is_part_of_its_first_token() -> None:
    arm = arm_at(0.9)
    served = finished(served_open(SCRIPT, slots=1, arm=arm))
    expected = [100 + wait * 1000 for wait in waits_s(arm.arrivals_s)]
    assert [t.time_to_first_token_ms for t in served] == pytest.approx(expected)
    assert max(expected) > 300


def test_a_slow_engine_s_queue_shows_in_the_open_loop_and_not_in_the_closed_one() -> None:
    slow, arm = Script(first_token_s=0.2, gap_s=0.02), arm_at(0.7)
    closed = [
        fmean(t.time_to_first_token_ms for t in served_closed(script, slots=1, clients=1))
        for script in (SCRIPT, slow)
    ]
    opened = [served_open(script, slots=1, arm=arm) for script in (SCRIPT, slow)]
    assert closed == pytest.approx([100, 200])
    medians = [
        quantile([t.time_to_first_token_ms for t in finished(served)], served.count(None), 50)
        for served in opened
    ]
    assert medians[0] is not None
    assert medians[1] is None or medians[1] > 10 * medians[0], "it cannot keep up"
    assert good_share(opened[0]) > 0.95
    assert good_share(opened[1]) < 0.5


def test_what_is_cut_off_is_no_answer_and_is_longer_than_all_others() -> None:
    arm = arm_at(0.9)
    served = served_open(Script(first_token_s=4.0, gap_s=0.0), slots=1, arm=arm)
    cut = served.count(None)
    assert 0 < cut < len(served)
    assert quantile([1.0] * len(finished(served)), cut, 99) is None
    assert good_per_second(served) == 0.0
    assert all(trace is None for trace in served[-cut:])


def test_an_answer_of_another_length_makes_the_arm_invalid() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        served_open(Script(stops_after=3), slots=1, arm=arm_at(0.5))
    assert raised.group_contains(InvalidRun, match="wrote 3 tokens")


@given(st.floats(0.05, 1e5), st.integers(2, 512), st.integers(0, 5))
def test_arrivals_are_the_same_for_all_and_bounded(speed: float, tokens: int, seed: int) -> None:
    arm = open_loop(speed, tokens, 8, seed)
    assert arm == open_loop(speed, tokens, 8, seed)
    if arm:
        assert MIN_ARRIVALS <= len(arm.arrivals_s) <= MAX_ARRIVALS
        assert arm.seconds <= ARRIVAL_SECONDS
        assert list(arm.arrivals_s) == sorted(arm.arrivals_s)


def test_arrivals_come_at_the_stated_share_of_base_s_speed() -> None:
    arms = [open_loop(1000, 100, 8, seed) for seed in range(100)]
    rates = [len(arm.arrivals_s) / arm.seconds for arm in arms if arm]
    assert fmean(rates) == pytest.approx(0.7 * 1000 / 100, rel=0.05)


def test_a_base_that_answers_too_few_requests_has_no_arm() -> None:
    assert open_loop(tokens_per_second=1, output_tokens=100, concurrency=1, seed=0) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 100))
def test_with_nothing_unfinished_a_quantile_is_the_usual_one(
    values: list[float], percent: float
) -> None:
    assert quantile(values, 0, percent) == pytest.approx(percentile(values, percent))


def test_the_record_gives_back_what_was_served() -> None:
    parameters = BenchmarkParameters(
        runtime=Runtime.TRANSFORMERS, image="", accelerator="None", input_tokens=2,
        output_tokens=TOKENS, concurrency=[1], precision="5%",
    )  # fmt: skip
    run = BenchmarkRun(Work(parameters, (), (), ()))
    run.open_loop = arm = arm_at(0.9)
    good = served_open(SCRIPT, slots=1, arm=arm)
    half = [*good[: len(good) // 2], *[None] * (len(good) - len(good) // 2)]
    run.open_processes = [
        ProcessRun("quantized", 1, [], invalid={1: "in bursts"}),
        ProcessRun("merged", 1, [], served=half),
        ProcessRun("base", 1, [], served=good),
    ]
    document = samples_of(run, Expectations(artifact=""), {})["openLoop"]
    record = open_loop_record(document)
    assert record is not None
    assert [row.condition for row in record.rows] == ["base", "merged"]
    assert {row.condition for row in record.rows} < set(CONDITIONS)
    base, merged = record.rows
    assert base.quantiles_ms["TimePerOutputToken"] == pytest.approx([10, 10, 10], abs=0.01)
    latency, first = base.quantiles_ms["RequestLatency"][0], base.quantiles_ms["TimeToFirstToken"]
    assert latency == pytest.approx((first[0] or 0) + 100, abs=0.01)
    assert (base.unfinished, base.good_share) == (0, round(good_share(good), 4))
    assert merged.quantiles_ms["RequestLatency"][2] is None
    assert merged.good_share == round(good_share(half), 4) <= 0.5
    assert [(m.name, m.text) for m in record.missing] == [("quantized", "in bursts")]
