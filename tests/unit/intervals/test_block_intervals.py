"""Intervals over blocks hold what they say, although sampling stops when they are narrow."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from lora_api.estimates import MIN_BLOCKS
from lora_jobs.benchmarking.blocks import MAX_BLOCKS, is_enough
from lora_jobs.intervals.blocks import BlockRatio, block_ratio, t_quantile

Floats = NDArray[np.float64]
RUNS = 20_000
SIMULATION_ERROR = 2.6 * math.sqrt(0.05 * 0.95 / RUNS)
"""99 % of simulations lie within it."""
PRECISION = 0.05


def noises(rng: np.random.Generator) -> dict[str, Floats]:
    """Log-ratios of blocks, true mean 0 and variance 1; a block's requests are in one number."""
    shape = (RUNS, MAX_BLOCKS)
    now_and_then = np.where(rng.random(shape) < 0.1, 4.0, 1.0) / math.sqrt(0.9 + 0.1 * 16)
    return {
        "normal": rng.standard_normal(shape),
        "heavy tails": rng.standard_t(4, shape) / math.sqrt(2),
        "a busy machine in one block of ten": rng.standard_normal(shape) * now_and_then,
    }


LOGS = noises(np.random.default_rng(11))


def sampled(logs: Floats, noise: float, precision: float = PRECISION) -> tuple[Floats, ...]:
    """Mean, half-width and blocks of each run where the protocol stops it; all in logarithms.

    The same arithmetic as `block_ratio` and `is_enough`, for all runs at once; a test below holds
    the two together.
    """
    counts = np.arange(1, MAX_BLOCKS + 1)
    sums, squares = np.cumsum(logs * noise, axis=1), np.cumsum((logs * noise) ** 2, axis=1)
    means = sums / counts
    variances = np.maximum(squares - counts * means**2, 0) / np.maximum(counts - 1, 1)
    quantiles = np.array([t_quantile(max(n - 1, 1)) for n in range(1, MAX_BLOCKS + 1)])
    widths = quantiles * np.sqrt(variances / counts)
    stops = (widths <= math.log1p(precision)) & (counts >= MIN_BLOCKS)
    stops[:, -1] = True
    at = stops.argmax(axis=1)
    runs = np.arange(len(logs))
    return means[runs, at], widths[runs, at], counts[at].astype(np.float64)


STOPPING_AFTER = [0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2]
"""Noise of a block for which 5 % are reached after 6 to all 40 blocks."""


@pytest.mark.parametrize("noise", STOPPING_AFTER)
@pytest.mark.parametrize("kind", LOGS.keys())
def test_the_truth_is_in_at_least_95_of_100_intervals_wherever_sampling_stops(
    kind: str, noise: float
) -> None:
    means, widths, _ = sampled(LOGS[kind], noise)
    # Heavy tails make Student's t careful; that it is 98 % then costs blocks and not truth.
    assert 0.95 - SIMULATION_ERROR <= np.mean(abs(means) <= widths) <= 0.98 + SIMULATION_ERROR


@pytest.mark.parametrize("blocks", [6, 12, 40])
@pytest.mark.parametrize("kind", LOGS.keys())
def test_stopped_by_the_clock_the_interval_holds_too(kind: str, blocks: int) -> None:
    logs = LOGS[kind][:, :blocks]
    error = logs.std(axis=1, ddof=1) / math.sqrt(blocks)
    inside = np.mean(abs(logs.mean(axis=1)) <= t_quantile(blocks - 1) * error)
    assert 0.95 <= inside <= 0.985


@pytest.mark.parametrize("noise", STOPPING_AFTER)
@pytest.mark.parametrize("kind", LOGS.keys())
def test_a_candidate_at_the_margin_passes_in_2_5_of_100_although_every_block_is_looked_at(
    kind: str, noise: float
) -> None:
    means, widths, _ = sampled(LOGS[kind], noise)
    for passed in (means - widths > 0, means + widths < 0):
        assert np.mean(passed) <= 0.025 + 2.6 * math.sqrt(0.025 * 0.975 / RUNS)


def test_a_plain_interval_of_95_would_hold_the_truth_less_often() -> None:
    means, widths, blocks = sampled(LOGS["normal"], noise=0.1)
    plain = [float(t.ppf(0.975, n - 1)) / t_quantile(n - 1) for n in blocks.astype(int)]
    assert np.mean(abs(means) <= widths * np.array(plain)) < 0.94


@pytest.mark.parametrize("noise", [0.05, 0.08, 0.1])
def test_a_good_candidate_passes_at_the_stated_power(noise: float) -> None:
    # Twice the precision from the limit, as 5 % asked of a limit of 10 % for an equal candidate.
    means, widths, _ = sampled(LOGS["normal"], noise)
    assert np.mean(means + widths < math.log1p(2 * PRECISION)) >= 0.9


@pytest.mark.parametrize("noise", [0.05, 0.08, 0.1])
def test_blocks_are_few_more_than_of_whoever_knew_the_noise(noise: float) -> None:
    # Below ten blocks one more is over 10 %, so one and a half are allowed.
    # The best fixed number: the least for which a 95 % t interval is narrow enough on the average.
    known = next(
        n
        for n in range(MIN_BLOCKS, 200)
        if float(t.ppf(0.975, n - 1)) * noise / math.sqrt(n) <= math.log1p(PRECISION)
    )
    _, _, blocks = sampled(LOGS["normal"], noise)
    assert blocks.mean() <= max(1.15 * known, known + 1.5)


def test_the_simulation_is_the_protocol() -> None:
    logs, noise = LOGS["normal"][:50], 0.08
    means, widths, blocks = sampled(logs, noise)
    for run, mean, width, stopped in zip(logs, means, widths, blocks, strict=True):
        for count in range(1, MAX_BLOCKS + 1):
            candidate = [math.exp(v * noise) for v in run[:count]]
            found = block_ratio(candidate, [1.0] * count)
            if is_enough(count, 0.0, 1.0, math.inf, [found], PRECISION):
                break
        assert count == stopped
        assert math.log(found.ratio) == pytest.approx(mean)
        assert math.log1p(found.half_width) == pytest.approx(width)


def test_the_interval_is_student_s_at_the_corrected_level() -> None:
    # log ratios 0.0, 0.1, 0.2: mean 0.1, s = 0.1, t(0.985, 2) = 5.6428
    found = block_ratio([math.exp(0.0), math.exp(0.1), math.exp(0.2)], [1.0, 1.0, 1.0])
    assert math.log1p(found.half_width) == pytest.approx(5.6428 * 0.1 / math.sqrt(3), rel=1e-4)
    assert found.bounds is not None
    low, high = found.bounds
    assert low * high == pytest.approx(found.ratio**2)


def test_one_block_has_no_interval() -> None:
    assert block_ratio([2.0], [1.0]) == BlockRatio(2.0, math.inf, 1)
    assert block_ratio([2.0], [1.0]).bounds is None
