"""Calibration rows for a model: its own tokenizer, its own limits."""

from collections.abc import Sequence
from pathlib import Path

from lora_api.spec import LossOn
from lora_jobs.datasets.records import RecordSet
from lora_jobs.datasets.tokens import tokenize
from lora_jobs.pretrained import load_tokenizer, refuse_beyond_positions
from lora_jobs.quantizing.calibration import calibration_rows


def rows_for_model(
    model: Path,
    sources: Sequence[RecordSet],
    *,
    samples: int,
    sequence_length: int,
    seed: int,
) -> list[list[int]]:
    """Rows of token ids, with the model's tokenizer and chat template.

    Raises:
        Refused: Rows longer than the model's positions, records that its template refuses, or too
            few tokens.
    """
    refuse_beyond_positions(model, sequence_length, "calibration.sequenceLength")
    tokenizer = load_tokenizer(model)
    records = [
        record.token_ids for source in sources for record in tokenize(source, tokenizer, LossOn.ALL)
    ]
    return calibration_rows(
        records,
        samples=samples,
        sequence_length=sequence_length,
        seed=seed,
        separator=tokenizer.eos_token_id,
    )
