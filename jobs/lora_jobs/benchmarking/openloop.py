"""The open-loop arm: requests come at random moments, whether or not the engine keeps up. Pure.

A closed loop never asks faster than it is answered, so the queue of an engine that is too slow does
not show in it (coordinated omission). Here the moments of arrival are drawn before anything is
measured, the same for every condition, and a request's times count from its arrival. The rate is a
share of what base answered in the closed loop, so that base keeps up and a slower one shows.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from lora_jobs.benchmarking.metrics import RequestTrace

RATE_SHARE = 0.7
"""Of base's closed-loop requests per second at the highest concurrency."""
MAX_ARRIVALS = 200
MIN_ARRIVALS = 20
"""Fewer say nothing of a queue."""
ARRIVAL_SECONDS = 60.0
"""Requests come for so long at most."""
MAX_OVERRUN = 2.0
"""Of the time of arrivals: then what is not answered is cut off, and counts as not met."""
MIN_DEADLINE_SECONDS = 30.0
TTFT_OBJECTIVE_MS = 2000.0
TPOT_OBJECTIVE_MS = 100.0
"""MLPerf Inference's limits for an 8B Llama that is served (not its interactive ones)."""
QUANTILES = (50, 90, 99)


@dataclass(frozen=True)
class OpenLoop:
    """What is asked of every condition, and when.

    Attributes:
        rate_per_second: Mean requests per second.
        concurrency: Of the closed loop whose throughput it is a share of.
        arrivals_s: When each request comes, from the start of the arm.
    """

    rate_per_second: float
    concurrency: int
    arrivals_s: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """From the start to the last arrival."""
        return self.arrivals_s[-1]

    @property
    def deadline_s(self) -> float:
        """When it is cut off."""
        return max(MAX_OVERRUN * self.seconds, MIN_DEADLINE_SECONDS)


Served = Sequence[RequestTrace | None]
"""One entry for each arrival; None for what was cut off. `sent_s` is the moment of arrival."""


def open_loop(
    tokens_per_second: float, output_tokens: int, concurrency: int, seed: int
) -> OpenLoop | None:
    """The arm for a throughput of base; None when too few requests come within its time.

    Args:
        tokens_per_second: Base's output tokens per second in the closed loop.
        output_tokens: Of each request.
        concurrency: Of that closed loop.
        seed: Of the gaps between arrivals, which are exponential.
    """
    rate = RATE_SHARE * tokens_per_second / output_tokens
    source = random.Random(seed)  # noqa: S311 - not for secrets
    times = accumulate(source.expovariate(rate) for _ in range(MAX_ARRIVALS))
    arrivals = tuple(time for time in times if time <= ARRIVAL_SECONDS)
    return OpenLoop(rate, concurrency, arrivals) if len(arrivals) >= MIN_ARRIVALS else None


def quantile(values: Sequence[float], unfinished: int, percent: float) -> float | None:
    """Linear between the closest ranks; what is unfinished is longer than all others.

    Returns:
        None where it lies among what is unfinished.
    """
    ordered = sorted(values)
    rank = (len(ordered) + unfinished - 1) * percent / 100
    below, above = math.floor(rank), math.ceil(rank)
    if above >= len(ordered):
        return None
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def meets_objectives(trace: RequestTrace) -> bool:
    """Whether a request was answered within both objectives."""
    per_token_ms = trace.time_per_output_token_ms
    return trace.time_to_first_token_ms <= TTFT_OBJECTIVE_MS and (
        per_token_ms is None or per_token_ms <= TPOT_OBJECTIVE_MS
    )


def good_share(served: Served) -> float:
    """Of all that came, the share that met the objectives; what was cut off did not."""
    return sum(trace is not None and meets_objectives(trace) for trace in served) / len(served)


def good_per_second(served: Served) -> float:
    """Requests that met the objectives, over the time from the first arrival to the last token."""
    done = [trace for trace in served if trace is not None]
    if not done:
        return 0.0
    seconds = max(t.arrivals_s[-1] for t in done) - min(t.sent_s for t in done)
    return sum(map(meets_objectives, done)) / seconds
