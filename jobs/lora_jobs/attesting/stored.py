"""Statements in the store: one envelope for each key that has signed for a release.

    releases/<name>/<id>/provenance/<fingerprint of the key>.json    a DSSE envelope
    releases/<name>/<id>/provenance/unsigned.json                    the bare statement

A trusted key's envelope is found by its name, so that serving pods need not list the bucket, and a
new key adds one beside the old. Whoever writes the bucket may put anything there: only what a key
has signed, for the very release, counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_api import layout
from lora_api.digests import canonical_json
from lora_api.jobcontract import Reason
from lora_jobs.attesting.envelope import opened, seal
from lora_jobs.attesting.keys import PrivateKey, PublicKey, fingerprint
from lora_jobs.attesting.signing import trusted_keys
from lora_jobs.attesting.statement import Json, Subject, checked
from lora_jobs.errors import StageError, Waiting
from lora_jobs.jsonfiles import parse_object
from lora_jobs.store.documents import create_json, create_or_adopt_json, read_json
from lora_jobs.store.interface import ObjectStore


@dataclass(frozen=True)
class Signed:
    """A statement that a trusted key has signed.

    Attributes:
        key: Fingerprint of that key.
        place: Key of the envelope in the store.
    """

    key: str
    place: str
    envelope: Json
    statement: Json


def write_signed(store: ObjectStore, subject: Subject, said: bytes, key: PrivateKey) -> None:
    """Sign a statement, unless this key has signed for this release before.

    What lies in its place and is not signed by it, somebody else has put there: it is replaced.
    """
    place = _place(subject, key.public_key())
    document = seal(said, key)
    standing = create_or_adopt_json(store, place, document)
    try:
        checked(opened(standing, key.public_key()), subject)
    except ValueError:
        store.write(place, canonical_json(document))


def write_unsigned(store: ObjectStore, subject: Subject, said: bytes) -> None:
    """The statement for the record, unless there is one."""
    key = layout.unsigned_provenance(subject.name, subject.release.id)
    create_json(store, key, parse_object(said))


def signed_statement(store: ObjectStore, subject: Subject, pems: Sequence[str]) -> Signed:
    """What one of these keys has signed for the release.

    Args:
        store: The scope, or a copy of what it holds: an envelope vouches for itself.
        subject: What must have been signed for.
        pems: Public keys, any of which will do.

    Raises:
        Waiting: ProvenanceMissing when none of them has signed for it; ProvenanceInvalid when what
            lies in the place of their envelopes is something else.
    """
    keys, wrong = trusted_keys(pems), []
    for key in keys:
        place = _place(subject, key)
        envelope = read_json(store, place)
        if envelope is None:
            continue
        try:
            said = checked(opened(envelope, key), subject)
        except ValueError as error:
            wrong.append(f"{store.uri(place)}: {error}")
            continue
        return Signed(fingerprint(key), place, envelope, said)
    raise _invalid(subject, wrong) if wrong else _missing(store, subject, keys)


def is_signed(store: ObjectStore, subject: Subject, pems: Sequence[str]) -> bool:
    """Whether one of these keys has signed for the release, as far as this store tells."""
    try:
        signed_statement(store, subject, pems)
    except (OSError, StageError):
        return False
    return True


def _place(subject: Subject, key: PublicKey) -> str:
    return layout.provenance(subject.name, subject.release.id, fingerprint(key))


def _missing(store: ObjectStore, subject: Subject, keys: Sequence[PublicKey]) -> Waiting:
    names = ", ".join(fingerprint(key)[:16] for key in keys)
    place = layout.unsigned_provenance(subject.name, subject.release.id).rpartition("/")[0]
    return Waiting(
        Reason.PROVENANCE_MISSING,
        f"none of the keys of spec.provenance.publicKeys ({names}) has signed for release "
        f"{subject.release.id} in {store.uri(place)}; let it be published with one of them, or "
        "choose a release that was",
    )


def _invalid(subject: Subject, wrong: Sequence[str]) -> Waiting:
    return Waiting(
        Reason.PROVENANCE_INVALID,
        f"what vouches for release {subject.release.id} does not hold: {'; '.join(wrong)}; find "
        "out who has written it, then remove it and let the release be published again",
    )
