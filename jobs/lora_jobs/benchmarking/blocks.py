"""Which condition is measured when, and when enough has been measured. Pure.

The first block measures every condition once. Later blocks repeat base and what would serve
(quantized, else merged), which the gates compare: there the restart of the engine is the replicate.
Each block has its own random order, so that drift of the machine favours nobody.

Where the time holds it, later blocks measure base a second time (`AGAIN`): base against itself is
the noise floor, below which a difference says nothing. It is decided by time alone, once, before
there is anything to compare.
"""

import math
import random
from collections.abc import Collection, Sequence

from lora_api.estimates import MIN_BLOCKS
from lora_api.gates import BASE, MERGED, QUANTIZED
from lora_jobs.intervals.blocks import BlockRatio

MAX_BLOCKS = 40
BLOCKS_WITHOUT_PAIR = 2
MAX_REPEATED_BLOCKS = 2
"""Blocks of a benchmark that are measured anew since the machine was disturbed."""
AGAIN = "base again"
"""The second process of base in a block, in the order and in folder names."""


def served_of(conditions: Collection[str]) -> str:
    """What would serve: quantized, or merged where nothing was quantized."""
    return QUANTIZED if QUANTIZED in conditions else MERGED


def compared(conditions: Sequence[str], repeats_all: bool = False) -> tuple[str, ...]:
    """The conditions that every block repeats; all of them when asked, or without the pair."""
    pair = tuple(c for c in conditions if c in (BASE, served_of(conditions)))
    every = tuple(c for c in conditions if c != AGAIN)
    return every if repeats_all or len(pair) < 2 else pair


def block_order(
    conditions: Sequence[str],
    block: int,
    seed: int,
    with_again: bool = False,
    repeats_all: bool = False,
) -> list[str]:
    """The conditions of a block, counted from 0, in its order; `with_again` from block 1 on."""
    members = list(conditions if block == 0 else compared(conditions, repeats_all))
    if with_again and block > 0:
        members.append(AGAIN)
    random.Random(f"{seed}/{block}").shuffle(members)  # noqa: S311 - not for secrets
    return members


def holds_again(
    conditions: Sequence[str],
    elapsed_seconds: float,
    block_seconds: float,
    base_seconds: float,
    max_duration_seconds: float,
) -> bool:
    """Whether a judgement's blocks fit with base measured twice in each, asked after the first.

    Args:
        conditions: What is measured.
        elapsed_seconds: Since the benchmark began, the first block included.
        block_seconds: What another block takes without it.
        base_seconds: What it adds.
        max_duration_seconds: What all may take.
    """
    if not {BASE, served_of(conditions)} <= set(conditions):
        return False
    later = (MIN_BLOCKS - 1) * (block_seconds + base_seconds)
    return elapsed_seconds + later <= max_duration_seconds


def holds_open_loop(
    conditions: Sequence[str],
    elapsed_seconds: float,
    block_seconds: float,
    open_loop_seconds: float,
    max_duration_seconds: float,
) -> bool:
    """Whether the open-loop arm fits after a judgement's blocks, asked after the first.

    Args:
        conditions: What is measured.
        elapsed_seconds: Since the benchmark began, the first block included.
        block_seconds: What another block takes, base measured again included.
        open_loop_seconds: What the arm takes in all conditions.
        max_duration_seconds: What all may take.
    """
    is_pair = {BASE, served_of(conditions)} <= set(conditions)
    later = ((MIN_BLOCKS if is_pair else BLOCKS_WITHOUT_PAIR) - 1) * block_seconds
    return elapsed_seconds + later + open_loop_seconds <= max_duration_seconds


def may_repeat(finished: int, left_seconds: float, block_seconds: float) -> bool:
    """Whether a block can be measured anew and a judgement's blocks still fit.

    Args:
        finished: Blocks before it.
        left_seconds: Until the benchmark must end.
        block_seconds: What a block takes.
    """
    return max(1, MIN_BLOCKS - finished) * block_seconds <= left_seconds


def is_precise(intervals: Sequence[BlockRatio], precision: float) -> bool:
    """Whether every interval's half-width is within `precision`, a fraction."""
    return bool(intervals) and all(i.half_width <= precision for i in intervals)


def is_enough(
    blocks: int,
    elapsed_seconds: float,
    block_seconds: float,
    max_duration_seconds: float,
    intervals: Sequence[BlockRatio],
    precision: float,
) -> bool:
    """Whether to stop after `blocks` blocks: precise, or another would take too long.

    The limit of a gate plays no part in it. Without a pair to compare there is no interval, and two
    blocks are enough.

    Args:
        blocks: Finished blocks.
        elapsed_seconds: Since the benchmark began.
        block_seconds: What another block will take.
        max_duration_seconds: What all may take.
        intervals: Of every timing metric, what would serve against base.
        precision: Half-width to reach.
    """
    if elapsed_seconds + block_seconds > max_duration_seconds or blocks >= MAX_BLOCKS:
        return True
    if not intervals:
        return blocks >= BLOCKS_WITHOUT_PAIR
    return blocks >= MIN_BLOCKS and is_precise(intervals, precision)


def blocks_that_fit(left_seconds: float, block_seconds: float) -> int:
    """Blocks that can still be run, for the estimate of the time left."""
    if block_seconds <= 0:
        return 0
    return max(0, min(MAX_BLOCKS, math.floor(left_seconds / block_seconds)))
