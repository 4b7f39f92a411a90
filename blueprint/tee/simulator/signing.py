"""The two algorithms with which a guest agent signs and checks messages for its application.

Invariant: a key of one algorithm is never used by the other; a signature that is malformed is invalid, not
an error. Source of the rule: dstack, guest agent (``Sign``, ``Verify``): secp256k1 over SHA-256 of the
message, 64 bytes.
"""

import hashlib

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["PREHASHED", "sign_message", "verify_message"]

PREHASHED = "secp256k1_prehashed"
"""secp256k1 over 32 bytes that are a digest already."""

_DIGEST_BYTES = 32
_SIGNATURE_BYTES = 64


def sign_message(algorithm: str, key: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Return signature (64 bytes) and public key (secp256k1: 33 bytes, ed25519: 32).

    Raises:
        ValueError: an unknown algorithm, or a digest of another length.
    """
    if algorithm == "ed25519":
        ed25519 = Ed25519PrivateKey.from_private_bytes(key)
        return ed25519.sign(data), ed25519.public_key().public_bytes_raw()
    secp256k1 = coincurve.PrivateKey(key)
    signature = secp256k1.sign_recoverable(_digest(algorithm, data), hasher=None)
    return signature[:_SIGNATURE_BYTES], secp256k1.public_key.format()


def verify_message(algorithm: str, public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Say whether a signature holds.

    Raises:
        ValueError: an unknown algorithm, or a key or digest that is none.
    """
    try:
        if algorithm == "ed25519":
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
            return True
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
        digest = _digest(algorithm, data)
        if len(signature) != _SIGNATURE_BYTES:
            return False
        half = _SIGNATURE_BYTES // 2
        encoded = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        key.verify(encoded, digest, ec.ECDSA(Prehashed(SHA256())))
    except InvalidSignature:
        return False
    return True


def _digest(algorithm: str, data: bytes) -> bytes:
    if algorithm == "secp256k1":
        return hashlib.sha256(data).digest()
    if algorithm != PREHASHED:
        raise ValueError(f"unsupported algorithm {algorithm!r}")
    if len(data) != _DIGEST_BYTES:
        raise ValueError(f"a digest has {_DIGEST_BYTES} bytes, received {len(data)}")
    return data
