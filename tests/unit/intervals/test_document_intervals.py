"""Intervals over documents hold what they say, however unequal the documents are."""

import math
import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lora_jobs.intervals.documents import (
    MIN_DOCUMENTS,
    effective_documents,
    ratio_of_sums,
)

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, Floats], Floats]
RUNS = 1000
SIMULATION_ERROR = 2.6 * math.sqrt(0.05 * 0.95 / RUNS)
"""99 % of simulations lie within it."""


def token_noise(sizes: Floats) -> Floats:
    """What a document's tokens add up to: their own noise, and some that they share."""
    return np.sqrt(sizes + 0.02 * sizes**2)


NOISES: dict[str, Noise] = {
    "normal": lambda rng, n: rng.standard_normal(len(n)) * token_noise(n),
    "shared by all tokens of a document": lambda rng, n: rng.standard_normal(len(n)) * n,
    "heavy tails": lambda rng, n: rng.standard_t(4, len(n)) * token_noise(n),
}


def skewed_sizes(rng: np.random.Generator, documents: int) -> Floats:
    """Log-normal: the longest of 100 documents is some ten times the median one."""
    return np.maximum(rng.lognormal(4, 0.8, documents), 2).round()


@lru_cache
def bounds_of(noise: Noise, documents: int) -> tuple[tuple[float, float], ...]:
    """The bounds of many evaluations whose true ratio is 0."""
    found = []
    for seed in range(RUNS):
        rng = np.random.default_rng([7, seed, documents])
        sizes = skewed_sizes(rng, documents)
        bounds = ratio_of_sums(list(noise(rng, sizes)), list(sizes)).bounds
        found.append(bounds or (-math.inf, math.inf))
    return tuple(found)


@pytest.mark.parametrize("documents", [10, 40, 200])
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
def test_the_truth_is_in_93_to_97_of_100_intervals(documents: int, noise: Noise) -> None:
    inside = [low <= 0 <= high for low, high in bounds_of(noise, documents)]
    assert 0.93 - SIMULATION_ERROR <= np.mean(inside) <= 0.97 + SIMULATION_ERROR


@pytest.mark.parametrize("documents", [40, 200])
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
def test_a_candidate_at_the_margin_passes_in_2_5_of_100(documents: int, noise: Noise) -> None:
    below = [high < 0 for _, high in bounds_of(noise, documents)]
    assert np.mean(below) <= 0.025 + 2.6 * math.sqrt(0.025 * 0.975 / RUNS)


def damage_in_few(rng: np.random.Generator, sizes: Floats) -> Floats:
    """One document in ten is damaged, and much; on the average nothing is left."""
    damaged = np.where(rng.random(len(sizes)) < 0.1, rng.exponential(8, len(sizes)), 0)
    return np.asarray((damaged - 0.8) * sizes)


def test_damage_in_few_documents_is_not_taken_for_none() -> None:
    # Student's t alone passes one in six of these; no interval over 100 documents sees all of it.
    bounds = bounds_of(damage_in_few, 100)
    assert np.mean([high < 0 for _, high in bounds]) <= 0.075
    assert np.mean(np.isinf(bounds)) <= 0.05


def test_a_good_candidate_passes_at_the_stated_power() -> None:
    # 90 % of candidates pass that are 3.5 standard errors better than the limit: 1.96 + 1.28 would
    # do if the error were known, and all documents as long as each other.
    bounds = bounds_of(NOISES["normal"], 200)
    error = float(np.std([(low + high) / 2 for low, high in bounds]))
    assert np.mean([high < 3.5 * error for _, high in bounds]) >= 0.9


def test_of_documents_of_one_size_the_interval_is_at_least_student_s() -> None:
    values = [float(i % 7) for i in range(40)]
    found = ratio_of_sums(values, [1.0] * 40)
    assert found.bounds is not None
    # mean 2.925, s = 2.0050..., t(0.975, 39) = 2.0227
    half_width = 2.0227 * float(np.std(values, ddof=1)) / math.sqrt(40)
    assert found.value == pytest.approx(np.mean(values))
    assert found.bounds[0] <= found.value - half_width + 1e-4
    assert found.bounds[1] >= found.value + half_width - 1e-4
    assert found.bounds[1] - found.bounds[0] <= 2.2 * half_width


def test_a_ratio_of_gains_is_estimated_with_the_same_care() -> None:
    inside = []
    for seed in range(RUNS):
        rng = np.random.default_rng([8, seed])
        sizes = skewed_sizes(rng, 60)
        gain = 0.5 * sizes + 0.2 * NOISES["normal"](rng, sizes)
        kept = 0.9 * gain + 0.05 * NOISES["normal"](rng, sizes)
        bounds = ratio_of_sums(list(kept), list(gain)).bounds
        assert bounds is not None
        inside.append(bounds[0] <= 0.9 <= bounds[1])
    assert 0.93 - SIMULATION_ERROR <= np.mean(inside) <= 0.97 + SIMULATION_ERROR


SIZES = st.lists(st.integers(1, 500), min_size=MIN_DOCUMENTS, max_size=30)


@settings(deadline=None, max_examples=50)  # the first example imports scipy
@given(SIZES, st.randoms(use_true_random=False), st.floats(0.01, 100))
def test_bounds_hold_the_value_and_scale_with_the_unit(
    sizes: list[int], chance: random.Random, factor: float
) -> None:
    values = [chance.random() - 0.5 for _ in sizes]
    found = ratio_of_sums(values, sizes)
    if found.bounds is None:  # all but a few documents say exactly the same
        assert len(set(values)) < len(values)
        return
    assert found.bounds[0] <= found.value <= found.bounds[1]
    scaled = ratio_of_sums([v * factor for v in values], sizes)
    assert scaled.bounds == pytest.approx([b * factor for b in found.bounds])


def test_equal_models_differ_by_exactly_nothing() -> None:
    assert ratio_of_sums([0.0] * 20, [5.0] * 20).bounds == (0.0, 0.0)


def test_too_few_documents_and_one_against_all_have_no_interval() -> None:
    assert ratio_of_sums([1.0, 2.0] * 4, [1.0] * 8).bounds is None
    assert ratio_of_sums([1.0] * 12, [5.0, *[-0.1] * 11]).bounds is None


def test_the_same_numbers_have_the_same_interval() -> None:
    values, sizes = [float(i * i % 11) for i in range(50)], [float(1 + i % 9) for i in range(50)]
    assert ratio_of_sums(values, sizes) == ratio_of_sums(values, sizes)


@given(st.integers(1, 50), st.integers(1, 1000))
def test_documents_of_equal_size_all_count(documents: int, size: int) -> None:
    assert effective_documents([size] * documents) == pytest.approx(documents)


def test_one_long_document_counts_for_little_more_than_itself() -> None:
    assert effective_documents([10_000, *[10] * 50]) == pytest.approx(1.1, abs=0.01)


def test_of_four_candidates_at_the_margin_one_passes_in_2_5_of_100() -> None:
    # As `line.walk` does: the first that is not Failed on one half is judged once on the other.
    passed = []
    for seed in range(RUNS):
        rng = np.random.default_rng([9, seed])
        sizes = skewed_sizes(rng, 120)
        candidates = [NOISES["normal"](rng, sizes) for _ in range(4)]
        halves = [
            [ratio_of_sums(list(c[half::2]), list(sizes[half::2])).bounds for half in (0, 1)]
            for c in candidates
        ]
        chosen = next((h for h in halves if h[0] is not None and h[0][0] <= 0), None)
        passed.append(chosen is not None and chosen[1] is not None and chosen[1][1] < 0)
    assert np.mean(passed) <= 0.025 + 2.6 * math.sqrt(0.025 * 0.975 / RUNS)
