"""Claims are decided as the tests of the textbook decide them, and never by too few blocks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from lora_jobs.intervals.blocks import NOMINAL_LEVEL, block_ratio
from lora_jobs.intervals.claims import MARGIN, Claimed, as_fast, paired_ratio, slower

LEVEL = (1 - NOMINAL_LEVEL) / 2
LOGS = st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=30).filter(
    lambda logs: max(logs) - min(logs) > 1e-3
)


def verdicts(logs: list[float]) -> tuple[Claimed, Claimed]:
    ratio = block_ratio([math.exp(log) for log in logs], [1.0] * len(logs))
    return as_fast(ratio).verdict, slower(ratio).verdict


@given(LOGS, st.floats(-0.1, 0.1), st.floats(0.01, 1))
def test_equal_is_what_two_one_sided_t_tests_say(
    shape: list[float], shift: float, scale: float
) -> None:
    logs = [shift + scale * log for log in shape]
    limit = math.log1p(MARGIN)
    above = float(ttest_1samp(logs, -limit, alternative="greater").pvalue)
    below = float(ttest_1samp(logs, limit, alternative="less").pvalue)
    nearest = min(abs(p - edge) for p in (above, below) for edge in (LEVEL, 1 - LEVEL))
    if nearest < 1e-9:
        return  # at the very edge rounding decides
    both = max(above, below) < LEVEL
    none = max(above, below) > 1 - LEVEL
    expected = Claimed.SUPPORTED if both else Claimed.REFUTED if none else Claimed.UNDECIDED
    assert verdicts(logs)[0] is expected


@given(LOGS, st.floats(-0.1, 0.1))
def test_slower_is_what_a_one_sided_t_test_says(shape: list[float], shift: float) -> None:
    logs = [shift + log for log in shape]
    p = float(ttest_1samp(logs, 0, alternative="less").pvalue)
    if min(abs(p - LEVEL), abs(p - 1 + LEVEL)) < 1e-9:
        return
    expected = (
        Claimed.SUPPORTED if p < LEVEL else Claimed.REFUTED if p > 1 - LEVEL else Claimed.UNDECIDED
    )
    assert verdicts(logs)[1] is expected


@pytest.mark.parametrize("blocks", range(6))
def test_fewer_than_six_blocks_decide_nothing_however_clear_they_are(blocks: int) -> None:
    ratio = paired_ratio(dict.fromkeys(range(blocks), 1.0), dict.fromkeys(range(9), 2.0))
    for finding in (as_fast(ratio), slower(ratio)):
        assert finding.verdict is Claimed.UNDECIDED
        assert f"in {blocks} of the 6 blocks" in finding.message


def test_only_blocks_that_measured_both_are_compared() -> None:
    ratio = paired_ratio({0: 2.0, 3: 2.0, 9: 100.0}, {0: 1.0, 3: 1.0, 4: 50.0})
    assert ratio is not None
    assert ratio.ratio == pytest.approx(2.0)
    assert ratio.blocks == 2
