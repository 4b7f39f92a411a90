"""Checks what a KMS says about keys: an application's encryption key, and keys that it derived for a guest.

The statements are recoverable secp256k1 signatures (``r || s || recovery id``, 65 bytes) over keccak-256.

Invariant: nothing counts as verified unless the recovered signer is one of the pinned keys. Almost any 65
bytes recover *some* key, so a recovery that succeeds proves nothing.
Source of the rule: dstack, KMS (``GetAppEnvEncryptPubKey``, app keys) and guest agent (``GetKey``, ``Sign``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import coincurve

from blueprint.errors import AttestationError
from blueprint.keccak import keccak256

__all__ = [
    "MAX_AGE_S",
    "MAX_SKEW_S",
    "VerifiedPublicKey",
    "signer_of_public_key",
    "verify_key_chain",
    "verify_public_key",
]

MAX_AGE_S = 300
"""How old a statement with a timestamp may be."""
MAX_SKEW_S = 60
"""How far in the future its timestamp may lie."""

_STATEMENT = b"dstack-env-encrypt-pubkey:"
_ISSUED = b"dstack-kms-issued:"
_APP_ID_BYTES = 20
_X25519_BYTES = 32
_COMPRESSED_BYTES = 33
_SIGNATURE_BYTES = 65
_RECOVERY_IDS = 4
_CHAIN_LENGTH = 2
_UINT64 = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPublicKey:
    """An application's encryption key for which a pinned KMS key vouches."""

    public_key: bytes
    """X25519, 32 bytes."""
    signer: bytes
    """The pinned key that signed: secp256k1, 33 bytes, compressed."""
    timestamp_s: int | None
    """When it was signed; None for a statement without a time, which anyone may repeat for ever."""


def verify_public_key(
    *,
    app_id: bytes,
    public_key: bytes,
    signature: bytes,
    pinned_keys: Collection[bytes],
    timestamp_s: int | None = None,
    now_s: int | None = None,
) -> VerifiedPublicKey:
    """Verify that a pinned KMS key vouches for an application's encryption key.

    Args:
        app_id: 20 bytes.
        public_key: X25519, 32 bytes.
        signature: 65 bytes.
        pinned_keys: the KMS keys to trust, secp256k1, 33 bytes each, compressed.
        timestamp_s: Unix time that the statement carries, or None for the form without.
        now_s: the trusted Unix time; must be given with a timestamp.

    Raises:
        AttestationError: another key signed, the statement is malformed, too old or from the future.
        ValueError: a timestamp is given without ``now_s``.
    """
    _check_pinned(pinned_keys)
    signer = signer_of_public_key(
        app_id=app_id, public_key=public_key, signature=signature, timestamp_s=timestamp_s
    )
    # SECURITY: the recovered key is compared, not just recovered (test_another_signer_is_refused).
    if signer not in pinned_keys:
        raise AttestationError(
            f"KMS key: the encryption key of app {app_id.hex()} is signed by {signer.hex()}, "
            f"which is not pinned ({_listed(pinned_keys)}); do not seal to it unless you know that KMS, "
            "and pin its key"
        )
    if timestamp_s is not None:
        if now_s is None:
            raise ValueError("now_s is needed to judge a statement with a timestamp")
        _check_fresh(timestamp_s, now_s)
    return VerifiedPublicKey(public_key=public_key, signer=signer, timestamp_s=timestamp_s)


def signer_of_public_key(
    *, app_id: bytes, public_key: bytes, signature: bytes, timestamp_s: int | None = None
) -> bytes:
    """Return the key that a statement recovers to, 33 bytes: to be shown and recorded on first use.

    This proves nothing about the statement. Use :func:`verify_public_key` to rely on it.

    Raises:
        AttestationError: the statement is malformed.
    """
    _check_length("app id", app_id, _APP_ID_BYTES)
    _check_length("X25519 public key", public_key, _X25519_BYTES)
    time = b""
    if timestamp_s is not None:
        if not 0 <= timestamp_s < _UINT64:
            raise AttestationError(f"KMS key: timestamp {timestamp_s} is no unsigned 64-bit integer")
        time = timestamp_s.to_bytes(8)
    return _recover(_STATEMENT + app_id + time + public_key, signature)


def verify_key_chain(
    *,
    app_id: bytes,
    purpose: str,
    public_key: bytes,
    signature_chain: Sequence[bytes],
    pinned_keys: Collection[bytes],
) -> bytes:
    """Verify that a key was derived in a CVM of this application, up to a pinned KMS key.

    Args:
        app_id: 20 bytes.
        purpose: the purpose that the guest named when it asked for the key.
        public_key: the derived key's public half as the agent signs it (secp256k1: 33 bytes, compressed).
        signature_chain: the application's signature over the key, and the KMS's over the application's key.
        pinned_keys: the KMS keys to trust, 33 bytes each, compressed.

    Returns:
        The pinned key that vouches, 33 bytes.

    Raises:
        AttestationError: the chain is malformed or ends in a key that is not pinned.
    """
    _check_pinned(pinned_keys)
    _check_length("app id", app_id, _APP_ID_BYTES)
    if len(signature_chain) != _CHAIN_LENGTH:
        raise AttestationError(
            f"key chain: expected {_CHAIN_LENGTH} signatures, received {len(signature_chain)}"
        )
    app_key = _recover(f"{purpose}:{public_key.hex()}".encode(), signature_chain[0])
    root = _recover(_ISSUED + app_id + app_key, signature_chain[1])
    # SECURITY: only the pinned root makes the recovered key of the application mean anything
    # (test_a_chain_to_another_root_is_refused).
    if root not in pinned_keys:
        raise AttestationError(
            f"key chain: ends in the KMS key {root.hex()}, which is not pinned ({_listed(pinned_keys)})"
        )
    return root


def _recover(message: bytes, signature: bytes) -> bytes:
    _check_length("KMS signature", signature, _SIGNATURE_BYTES)
    if signature[-1] >= _RECOVERY_IDS:
        raise AttestationError(
            f"KMS signature: recovery id {signature[-1]}, expected 0 to {_RECOVERY_IDS - 1}"
        )
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, keccak256(message), hasher=None)
    except ValueError as error:
        raise AttestationError("KMS signature: not a signature over secp256k1") from error
    return key.format(compressed=True)


def _check_pinned(pinned_keys: Collection[bytes]) -> None:
    if not pinned_keys:
        raise AttestationError("KMS key: none is pinned, so that none can be trusted")
    for key in pinned_keys:
        _check_length("pinned KMS key", key, _COMPRESSED_BYTES)


def _check_fresh(timestamp_s: int, now_s: int) -> None:
    if timestamp_s > now_s + MAX_SKEW_S:
        raise AttestationError(
            f"KMS key: signed {timestamp_s - now_s} s in the future, at most {MAX_SKEW_S} s are accepted; "
            "check the clock"
        )
    if now_s - timestamp_s > MAX_AGE_S:
        raise AttestationError(
            f"KMS key: signed {now_s - timestamp_s} s ago, at most {MAX_AGE_S} s are accepted; ask again"
        )


def _check_length(what: str, value: bytes, expected: int) -> None:
    if len(value) != expected:
        raise AttestationError(f"{what}: expected {expected} bytes, received {len(value)}")


def _listed(keys: Collection[bytes]) -> str:
    return ", ".join(sorted(key.hex() for key in keys))
