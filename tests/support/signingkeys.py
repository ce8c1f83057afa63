"""Key pairs that sign releases, fresh ones, and the fields that name them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from lora_jobs.attesting.keys import PublicKey, fingerprint

KINDS = ("ed25519", "p256")


PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_MADE: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "encrypted": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


class KeyPair:
    """A private key and its public half, as PEM texts.

    Args:
        kind: One of `KINDS`, or what is not taken: `p384`, `rsa`, `encrypted`.
    """

    def __init__(self, kind: str = "ed25519") -> None:
        key = _MADE[kind]()
        how: KeySerializationEncryption = NoEncryption()
        if kind == "encrypted":
            how = BestAvailableEncryption(b"passphrase")
        self.private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        self.public: Any = key.public_key()
        pem: bytes = self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public_pem = pem.decode()

    @property
    def fingerprint(self) -> str:
        """The name of its envelopes."""
        public: PublicKey = self.public
        return fingerprint(public)

    @property
    def canary(self) -> str:
        """A part of the private key, for looking whether it has leaked."""
        return self.private_pem.decode().splitlines()[1]

    def mounted(self, folder: Path) -> str:
        """The folder that holds it as a Secret's file, for LORA_SIGNING_DIR."""
        folder.mkdir(exist_ok=True)
        (folder / "key.pem").write_bytes(self.private_pem)
        return str(folder)


SIGNING_SECRET = "release-key"
SIGNING: dict[str, Any] = {"secretRef": {"name": SIGNING_SECRET}}
"""`spec.provenance.signing`."""


def provenance(*trusted: KeyPair, signs: bool = True) -> dict[str, Any]:
    """`spec.provenance`."""
    keys = {"publicKeys": [pair.public_pem for pair in trusted]} if trusted else {}
    return ({"signing": SIGNING} if signs else {}) | keys
