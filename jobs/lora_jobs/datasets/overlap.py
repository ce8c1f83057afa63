"""Calibration and evaluation must not share a record: what was calibrated on reads too well.

Records are compared after folding case and white space, by SHA-256. A finding names lines, and of
the content no more than `SHOWN_CHARACTERS`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lora_api.jobcontract import Reason
from lora_jobs.datasets.records import Place, Record, RecordSet
from lora_jobs.errors import Refused

SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Overlap:
    """One record that two sets share."""

    calibration: Place
    evaluation: Place
    beginning: str


def fingerprint(record: Record) -> bytes:
    """SHA-256 of the record's text, case and white space folded."""
    return hashlib.sha256(_folded(record).encode()).digest()


def overlaps(calibration: Iterable[RecordSet], evaluation: RecordSet) -> Iterator[Overlap]:
    """Every record of `evaluation` that a calibration set holds too, in order."""
    known: dict[bytes, Place] = {}
    for source in calibration:
        for record in source.records:
            known.setdefault(fingerprint(record), record.place)
    for record in evaluation.records:
        place = known.get(fingerprint(record))
        if place is not None:
            yield Overlap(place, record.place, _folded(record)[:SHOWN_CHARACTERS])


def refuse_overlap(calibration: list[RecordSet], evaluation: RecordSet) -> None:
    """Let disjoint sets pass.

    Raises:
        Refused: They share records (`DATASET_OVERLAP`): how many, and where the first one stands.
    """
    shared = list(overlaps(calibration, evaluation))
    if shared:
        first = shared[0]
        raise Refused(
            Reason.DATASET_OVERLAP,
            f"{len(shared)} of {len(evaluation.records)} records of {evaluation.name} are in the "
            f"calibration set too, e.g. {first.evaluation} is {first.calibration} "
            f"({first.beginning!r}); remove them from one of the two",
        )


def _folded(record: Record) -> str:
    return " ".join(record.plain.casefold().split())
