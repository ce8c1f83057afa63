"""Keys that sign: ECDSA on P-256 with SHA-256, and Ed25519, as PEM texts.

Both are what cosign takes. Messages never hold a key, nor what a parser said of one.
"""

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
KINDS = "ECDSA P-256 or Ed25519"


def private_key(pem: bytes) -> PrivateKey:
    """The key of a PEM text, PKCS #8 or SEC 1.

    Raises:
        ValueError: It is none that signs here; one line says why.
    """
    if b"ENCRYPTED" in pem:
        raise ValueError("is encrypted, and there is nobody to ask for its passphrase")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is no private key in PEM") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError(f"is a key of another kind than {KINDS}")


def public_key(pem: str) -> PublicKey:
    """The key of a PEM text.

    Raises:
        ValueError: It is none that is trusted here; one line says why.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is no public key in PEM") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError(f"is a key of another kind than {KINDS}")


def fingerprint(key: PublicKey) -> str:
    """Hex SHA-256 of the SubjectPublicKeyInfo, as `openssl pkey -pubin -outform der` prints it."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def sign(key: PrivateKey, message: bytes) -> bytes:
    """Ed25519's own form, or an ECDSA signature in DER."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(SHA256()))


def has_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether this key made the signature, of this very message."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
