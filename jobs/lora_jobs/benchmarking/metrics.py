"""From raw timestamps to numbers. Pure; every formula of the report stands here.

    TTFT    arrival of the first output token - request sent                               (ms)
    TPOT    (arrival of the last output token - arrival of the first) / (n - 1)             (ms)
            vLLM's definition; other tools count the first token in
    OutputTokensPerSecond@c   output tokens of a closed loop of c clients / its duration, from the
            first request sent to the last token; at c = 1 the mean speed of a single request

A block is one fresh engine process. A block's TTFT and TPOT are the median over its requests; a
condition's number is the geometric mean over its blocks, so that the ratio of two conditions is the
exponential of their mean log-ratio, which is what the interval is for.

TRAP: a small model on few cores can reach the client in one burst, since the engine's event loop
gets no turn while it computes. Such timestamps say nothing about single tokens: `is_burst`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

SHORT_GAP_SHARE_OF_MEAN = 0.05
MAX_SHARE_OF_SHORT_GAPS = 0.6
"""Tokens in pairs have one short gap in two, and still say how fast they come."""
MIN_ARRIVALS_SHARE = 1 / 8
FASTEST_PLAUSIBLE_GAP_MS = 0.1
"""10,000 tokens/s in a single stream: no engine decodes that fast, only a buffer empties so."""
MAX_SHARE_OF_BURSTS = 0.25
"""A machine that is busy elsewhere for a moment makes bursts of a few requests; medians over all
requests do not move by them. An engine that buffers makes bursts of all."""


@dataclass(frozen=True)
class RequestTrace:
    """One request as the client saw it.

    Attributes:
        sent_s: When it was sent, on a monotonic clock.
        arrivals_s: When output arrived, one entry for each read that held output tokens.
        output_tokens: As the engine counted them.
        prompt_tokens: As the engine counted them.
        text: What was written.
        pieces: The text of each streamed chunk.
        model: The name under which the engine answered.
    """

    sent_s: float
    arrivals_s: tuple[float, ...]
    output_tokens: int
    prompt_tokens: int
    text: str = ""
    pieces: tuple[str, ...] = ()
    model: str = ""

    @property
    def time_to_first_token_ms(self) -> float:
        """From request sent to first output token."""
        return (self.arrivals_s[0] - self.sent_s) * 1000

    @property
    def latency_ms(self) -> float:
        """From request sent to last output token."""
        return (self.arrivals_s[-1] - self.sent_s) * 1000

    @property
    def time_per_output_token_ms(self) -> float | None:
        """(latency - TTFT) / (n - 1); None below two tokens."""
        if self.output_tokens < 2:
            return None
        return (self.latency_ms - self.time_to_first_token_ms) / (self.output_tokens - 1)

    @property
    def output_tokens_per_second(self) -> float:
        """Output tokens over latency, prefill included."""
        return self.output_tokens / (self.latency_ms / 1000)


def is_burst(trace: RequestTrace) -> bool:
    """Whether the tokens arrived together rather than one after the other.

    Any of: fewer reads than an eighth of the tokens; more than 60 % of the gaps between reads below
    5 % of the mean gap; a mean time per token below 0.1 ms. Requests of fewer than 4 tokens cannot
    tell and are not judged.
    """
    if trace.output_tokens < 4:
        return False
    if len(trace.arrivals_s) < max(2.0, trace.output_tokens * MIN_ARRIVALS_SHARE):
        return True
    per_token_ms = trace.time_per_output_token_ms
    assert per_token_ms is not None  # there are at least 4 tokens
    if per_token_ms < FASTEST_PLAUSIBLE_GAP_MS:
        return True
    gaps = [b - a for a, b in zip(trace.arrivals_s, trace.arrivals_s[1:], strict=False)]
    short = SHORT_GAP_SHARE_OF_MEAN * fmean(gaps)
    return sum(gap < short for gap in gaps) > MAX_SHARE_OF_SHORT_GAPS * len(gaps)


def is_burst_run(traces: Sequence[RequestTrace]) -> bool:
    """Whether more than a quarter of a run's requests are bursts: then it is no measurement."""
    return sum(map(is_burst, traces)) > MAX_SHARE_OF_BURSTS * len(traces)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between the closest ranks, as numpy's default.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


@dataclass(frozen=True)
class Speed:
    """One closed loop in one process.

    Attributes:
        time_per_output_token_ms: None when no request had two tokens.
    """

    time_to_first_token_ms: float
    time_per_output_token_ms: float | None
    output_tokens_per_second: float


def speed_of(traces: Sequence[RequestTrace]) -> Speed:
    """Medians over requests, and the loop's throughput."""
    per_token = [t for t in (r.time_per_output_token_ms for r in traces) if t is not None]
    duration_s = max(r.arrivals_s[-1] for r in traces) - min(r.sent_s for r in traces)
    return Speed(
        time_to_first_token_ms=median(r.time_to_first_token_ms for r in traces),
        time_per_output_token_ms=median(per_token) if per_token else None,
        output_tokens_per_second=sum(r.output_tokens for r in traces) / duration_s,
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Exp of the mean logarithm of positive values."""
    return math.exp(fmean(math.log(value) for value in values))


def decimal_text(value: float) -> str:
    """A positive number with four significant digits and no exponent: `0.01234`, `123500`."""
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    rounded = round(value, digits)
    return f"{rounded:.{max(digits, 0)}f}"
