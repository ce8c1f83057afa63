"""The key of `spec.provenance.signing`, a file of its Secret; what is wrong with it is told early.

The mount is optional, so that a missing Secret is a typed reason here and no pod that hangs.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from lora_api.jobcontract import DEFAULT_SIGNING_DIR, SIGNING_DIR_ENV, Reason
from lora_api.provenance import Provenance, Signing
from lora_jobs.attesting.keys import (
    KINDS,
    PrivateKey,
    PublicKey,
    fingerprint,
    private_key,
    public_key,
)
from lora_jobs.connections import is_local_run
from lora_jobs.errors import Waiting

_MOST_BYTES = 64 * 1024


def trusted_keys(pems: Sequence[str]) -> list[PublicKey]:
    """The keys of `provenance.publicKeys`.

    Raises:
        Waiting: One of them is no key, though it looks like one.
    """
    keys = []
    for number, pem in enumerate(pems):
        try:
            keys.append(public_key(pem))
        except ValueError as error:
            raise Waiting(
                Reason.INVALID_INPUT,
                f"spec.provenance.publicKeys[{number}] {error}; put the text there that "
                "`openssl pkey -in key.pem -pubout` prints",
            ) from None
    return keys


def signing_key(provenance: Provenance) -> PrivateKey:
    """The private key, one that is trusted where keys are named.

    Raises:
        Waiting: It is not there, cannot sign, or nobody would trust what it signs.
    """
    signing = provenance.signing
    if signing is None:
        raise Waiting(
            Reason.SIGNING_KEY_UNUSABLE,
            "spec.provenance.publicKeys asks for a signature, and no key is named that could make "
            "one; name its Secret in spec.provenance.signing.secretRef",
        )
    key = _read(signing)
    trusted = [fingerprint(k) for k in trusted_keys(provenance.public_keys or ())]
    own = fingerprint(key.public_key())
    if trusted and own not in trusted:
        raise Waiting(
            Reason.SIGNING_KEY_UNUSABLE,
            f"{_place(signing)} is the key with fingerprint {own[:16]}, which "
            "spec.provenance.publicKeys does not trust; add its public half there, or put the "
            "right key into the Secret",
        )
    return key


def _read(signing: Signing) -> PrivateKey:
    file = Path(os.environ.get(SIGNING_DIR_ENV, DEFAULT_SIGNING_DIR)) / signing.key
    if not file.is_file():
        raise Waiting(Reason.CREDENTIALS_MISSING, _missing(signing))
    with file.open("rb") as stream:
        pem = stream.read(_MOST_BYTES)
    try:
        return private_key(pem)
    except ValueError as error:
        raise Waiting(
            Reason.SIGNING_KEY_UNUSABLE,
            f"{_place(signing)} {error}; put a private key there, {KINDS} in PEM and without a "
            "passphrase, as `openssl genpkey -algorithm ed25519` makes it",
        ) from None


def _missing(signing: Signing) -> str:
    if is_local_run():
        return (
            f"there is no key {signing.key} to sign with; set {SIGNING_DIR_ENV} to the folder that "
            "holds it, or remove spec.provenance"
        )
    return (
        f'Secret "{signing.secret_ref.name}" of spec.provenance.signing is not there or lacks '
        f"{signing.key}; create it in the object's namespace with "
        f"--from-file={signing.key}=PRIVATE_KEY.pem"
    )


def _place(signing: Signing) -> str:
    return f'{signing.key} of Secret "{signing.secret_ref.name}"'
