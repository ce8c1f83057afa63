"""Calibration and evaluation must not share a record: what was calibrated on reads too well.

Records are compared after folding case and white space, by SHA-256, then by the runs of words that
they share (`nearduplicates`). A finding names lines, and of the content no more than
`SHOWN_CHARACTERS`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lora_api.jobcontract import Reason
from lora_jobs.datasets.nearduplicates import near_duplicates
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
        Refused: They share records, or an evaluation record stands nearly word for word in a
            calibration record (`DATASET_OVERLAP`): how many, and where the first one stands.
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
    _refuse_near_duplicates([r for s in calibration for r in s.records], evaluation)


def _refuse_near_duplicates(seen: Sequence[Record], evaluation: RecordSet) -> None:
    asked = evaluation.records
    near = list(near_duplicates([r.plain for r in seen], [r.plain for r in asked]))
    if near:
        at, holder, share = near[0]
        raise Refused(
            Reason.DATASET_OVERLAP,
            f"{len(near)} of {len(asked)} records of {evaluation.name} stand nearly word for word "
            f"in the calibration set, e.g. {share:.0%} of {asked[at].place} in "
            f"{seen[holder].place} ({_folded(asked[at])[:SHOWN_CHARACTERS]!r}); remove them from "
            "one of the two",
        )


def _folded(record: Record) -> str:
    return " ".join(record.plain.casefold().split())
