"""Liveness fails for what a restart cures, at once and with the reason, and for nothing else."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator.health import MAX_LAG_SECONDS, LoopLag, Unhealthy, health_served
from lora_operator.reconcile import ObjectKey
from lora_operator.watchage import WatchAge


def lagging(*seconds: float) -> LoopLag:
    lag = LoopLag()
    for late in seconds:
        lag.observe(late)
    return lag


def test_a_prompt_loop_is_healthy_and_so_is_one_that_has_just_begun() -> None:
    lagging(*[0.01] * 1000).check()
    lagging(*[60.0] * 199).check()


def test_a_loop_that_is_late_again_and_again_is_not() -> None:
    with pytest.raises(Unhealthy, match=r"p99 is 6\.0 s"):
        lagging(*[0.01] * 197, *[6.0] * 3).check()


def test_a_machine_that_was_suspended_twice_is_no_reason_for_a_restart() -> None:
    lagging(*[0.01] * 198, 3600.0, 3600.0).check()


def test_a_loop_that_has_recovered_is_healthy_again() -> None:
    lagging(*[60.0] * 200, *[0.01] * 198).check()


@given(st.lists(st.floats(0, 100), min_size=200, max_size=200))
def test_it_fails_exactly_when_more_than_two_of_the_last_200_were_too_late(
    seconds: list[float],
) -> None:
    too_late = sum(late > MAX_LAG_SECONDS for late in seconds)
    try:
        lagging(*seconds).check()
    except Unhealthy:
        assert too_late > 2
    else:
        assert too_late <= 2


@pytest.mark.fault("F11")
async def test_the_liveness_probe_fails_at_once_while_the_watch_is_deaf_and_says_why(
    unused_tcp_port: int,
) -> None:
    age, lag = WatchAge[ObjectKey](), LoopLag()
    url = f"http://127.0.0.1:{unused_tcp_port}/healthz"
    checks = {"watch": age.check, "loop": lag.check}
    async with health_served(urlsplit(url), checks), httpx.AsyncClient() as client:
        assert (await client.get(url)).json() == {"watch": "ok", "loop": "ok"}
        for _ in range(2):
            age.compare({ObjectKey("team", "demo"): "2"})
        answer = await client.get(url)
        assert answer.status_code == 500
        assert "team/demo" in answer.json()["watch"]
        assert answer.json()["loop"] == "ok"
        age.tell(ObjectKey("team", "demo"), "2")
        assert (await client.get(url)).status_code == 200


async def test_the_probe_fails_while_the_loop_is_late_and_says_why(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/healthz"
    late = lagging(*[10.0] * 200)
    async with health_served(urlsplit(url), {"loop": late.check}), httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert answer.status_code == 500
    assert answer.json() == {
        "loop": "the event loop is late: p99 is 10.0 s over the last 200 samples, the limit 5 s"
    }
