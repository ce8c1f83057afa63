"""Every formula of the timing rows, and what is no measurement."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_jobs.benchmarking.metrics import (
    RequestTrace,
    decimal_text,
    is_burst,
    is_burst_run,
    percentile,
    speed_of,
)

POSITIVE = st.floats(min_value=1e-3, max_value=1e6)


def streamed(first_s: float, gap_s: float, tokens: int, sent_s: float = 0.0) -> RequestTrace:
    arrivals = tuple(sent_s + first_s + i * gap_s for i in range(tokens))
    return RequestTrace(sent_s, arrivals, output_tokens=tokens, prompt_tokens=4)


@given(st.floats(0.001, 10), st.floats(0.0005, 1), st.integers(2, 64), st.floats(0, 1e4))
def test_a_steady_stream_gives_back_its_delays(
    first_s: float, gap_s: float, tokens: int, sent_s: float
) -> None:
    trace = streamed(first_s, gap_s, tokens, sent_s)
    assert trace.time_to_first_token_ms == pytest.approx(first_s * 1000, abs=1e-6)
    assert trace.time_per_output_token_ms == pytest.approx(gap_s * 1000, abs=1e-6)
    assert not is_burst(trace)


def test_a_single_token_has_no_time_per_output_token() -> None:
    assert streamed(0.1, 0.0, 1).time_per_output_token_ms is None


def test_several_tokens_in_a_chunk_do_not_distort_the_time_per_output_token() -> None:
    trace = RequestTrace(0.0, (0.1, 0.14, 0.18), output_tokens=5, prompt_tokens=1)
    assert trace.time_per_output_token_ms == pytest.approx(20.0)


def test_throughput_is_of_the_whole_loop_and_not_a_mean_of_means() -> None:
    traces = [streamed(0.1, 0.1, 10), streamed(0.1, 0.1, 10, sent_s=0.0)]
    assert speed_of(traces).output_tokens_per_second == pytest.approx(20.0)
    assert speed_of(traces[:1]).output_tokens_per_second == pytest.approx(
        traces[0].output_tokens_per_second
    )


def test_tokens_in_one_read_are_a_burst() -> None:
    assert is_burst(RequestTrace(0.0, (0.5,), output_tokens=32, prompt_tokens=1))


def test_tokens_that_a_buffer_empties_evenly_are_a_burst() -> None:
    assert is_burst(streamed(0.5, 8e-6, 32))


def test_tokens_in_two_clumps_are_a_burst() -> None:
    clumps = [0.1 + i * 1e-4 for i in range(16)] + [0.6 + i * 1e-4 for i in range(16)]
    assert is_burst(RequestTrace(0.0, tuple(clumps), output_tokens=32, prompt_tokens=1))


def test_tokens_in_pairs_are_no_burst() -> None:
    pairs = [0.1 + (i // 2) * 0.02 + (i % 2) * 1e-4 for i in range(32)]
    assert not is_burst(RequestTrace(0.0, tuple(pairs), output_tokens=32, prompt_tokens=1))


def test_a_stall_in_a_stream_is_no_burst() -> None:
    trace = streamed(0.1, 0.01, 32)
    stalled = tuple(a + (0.2 if i > 20 else 0.0) for i, a in enumerate(trace.arrivals_s))
    assert not is_burst(RequestTrace(0.0, stalled, output_tokens=32, prompt_tokens=1))


def test_two_bursts_of_eight_requests_leave_a_run_valid_and_three_do_not() -> None:
    good, burst = streamed(0.1, 0.01, 32), streamed(0.1, 1e-6, 32)
    assert not is_burst_run([burst] * 2 + [good] * 6)
    assert is_burst_run([burst] * 3 + [good] * 5)


@given(st.lists(POSITIVE, min_size=1, max_size=30))
def test_percentiles_are_the_usual_ones(values: list[float]) -> None:
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)
    assert percentile(values, 50) == pytest.approx(statistics.median(values))


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.floats(min_value=1e-6, max_value=1e15))
def test_decimal_texts_keep_four_digits_and_no_exponent(value: float) -> None:
    text = decimal_text(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=6e-4)


def test_decimal_texts_read_well() -> None:
    assert [decimal_text(v) for v in (123456.7, 98.765, 0.0123456, 5.0)] == [
        "123500", "98.77", "0.01235", "5.000",
    ]  # fmt: skip
