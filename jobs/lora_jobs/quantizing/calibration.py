"""Calibration rows: exactly as many tokens as were asked for. Pure.

Records are shuffled by the seed, joined, and cut into rows of equal length. GPTQ then sees no
padding, no row that a library drops for being short, and no token more or less than the budget.
"""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused


def calibration_rows(
    records: Sequence[Sequence[int]],
    *,
    samples: int,
    sequence_length: int,
    seed: int,
    separator: int | None = None,
    label: str = "the calibration set",
) -> list[list[int]]:
    """`samples` rows of `sequence_length` token ids.

    Args:
        records: Token ids of each record, of all sources in order.
        samples: Rows to make.
        sequence_length: Tokens of each.
        seed: Decides the order of the records.
        separator: Put between records; the tokenizer's end token, so that a row that holds two
            documents looks like the text that models are trained on.
        label: What an error calls the records.

    Raises:
        Refused: The records have too few tokens (`TOO_LITTLE_CALIBRATION`).
    """
    wanted = samples * sequence_length
    stream: list[int] = []
    for index in _shuffled(len(records), seed):
        stream.extend(records[index])
        if separator is not None and (not stream or stream[-1] != separator):
            stream.append(separator)
        if len(stream) >= wanted:
            break
    if len(stream) < wanted:
        raise Refused(
            Reason.TOO_LITTLE_CALIBRATION,
            f"{label} has {len(stream)} tokens; {samples} samples of "
            f"{sequence_length} need {wanted - len(stream)} more: add records, or lower "
            "calibration.samples or sequenceLength",
        )
    rows = [stream[at : at + sequence_length] for at in range(0, wanted, sequence_length)]
    assert len(rows) == samples
    assert all(len(row) == sequence_length for row in rows)
    return rows


def shares(samples: int, weights: Sequence[Fraction]) -> list[int]:
    """`samples` in whole numbers, in proportion to weights (the largest remainder method).

    Raises:
        Refused: A weight is so small that it gets none.
    """
    exact = [samples * weight / sum(weights) for weight in weights]
    whole = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for index in by_remainder[: samples - sum(whole)]:
        whole[index] += 1
    if 0 in whole:
        raise Refused(
            Reason.TOO_LITTLE_CALIBRATION,
            f"calibration source {whole.index(0)} gets none of {samples} samples by its weight: "
            "raise calibration.samples or the weight, or leave the source out",
        )
    return whole


def _shuffled(count: int, seed: int) -> list[int]:
    """The same order on every platform and in every version of every library."""
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
