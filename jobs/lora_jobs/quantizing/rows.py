"""Calibration rows for a model: its own tokenizer, its own limits."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

from lora_api.spec import LossOn
from lora_jobs.datasets.records import RecordSet
from lora_jobs.datasets.tokens import tokenize
from lora_jobs.pretrained import load_tokenizer, refuse_beyond_positions
from lora_jobs.quantizing.calibration import calibration_rows, shares


def rows_for_model(
    model: Path,
    sources: Sequence[RecordSet],
    *,
    samples: int,
    sequence_length: int,
    seed: int,
    weights: Sequence[str] = (),
) -> list[list[int]]:
    """Rows of token ids, with the model's tokenizer and chat template.

    Args:
        model: Folder with the tokenizer.
        sources: Calibration sets.
        samples: Rows to make.
        sequence_length: Tokens of each.
        seed: Decides the order of the records.
        weights: Of each source, its share of the rows beside the others; none: all are joined.

    Raises:
        Refused: Rows longer than the model's positions, records that its template refuses, or too
            few tokens.
    """
    refuse_beyond_positions(model, sequence_length, "calibration.sequenceLength")
    tokenizer = load_tokenizer(model)
    parts = [[r.token_ids for r in tokenize(s, tokenizer, LossOn.ALL)] for s in sources]
    labels = [f"calibration source {number}" for number in range(len(parts))]
    if weights:
        counts = shares(samples, [Fraction(weight) for weight in weights])
    else:
        parts, counts, labels = [list(chain(*parts))], [samples], ["the calibration set"]
    return [
        row
        for part, count, label in zip(parts, counts, labels, strict=True)
        for row in calibration_rows(
            part, samples=count, sequence_length=sequence_length, seed=seed,
            separator=tokenizer.eos_token_id, label=label,
        )
    ]  # fmt: skip
