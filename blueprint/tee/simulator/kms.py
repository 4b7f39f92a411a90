"""A simulated KMS: the keys of applications, and signed statements about them.

Invariant: every key follows from the seed, the app id and the number of rotations alone, so a KMS that starts
again with its seed gives the same keys; and what it signs verifies with :mod:`blueprint.tee.kms_key` under
its root key.
Source of the rule: dstack, KMS (app keys, encryption keys of environments) and guest agent (``GetKey``).
"""

import os

import coincurve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blueprint.keccak import keccak256
from blueprint.tee.policy import KeyProvider

__all__ = ["SimulatedKms", "derive_key"]

_KEY_BYTES = 32


class SimulatedKms:
    """Gives keys to simulated guests.

    Args:
        seed: 32 secret bytes; random when None.
    """

    def __init__(self, seed: bytes | None = None) -> None:
        self._seed = os.urandom(_KEY_BYTES) if seed is None else seed
        self._rotations = 0
        self._root = coincurve.PrivateKey(derive_key(self._seed, b"SIMULATED-KMS", b"root"))

    @property
    def root_public_key(self) -> bytes:
        """The key to pin: secp256k1, 33 bytes, compressed."""
        return self._root.public_key.format()

    @property
    def key_provider(self) -> KeyProvider:
        """How a guest names this KMS in its event log."""
        return KeyProvider(name="kms", id=self.root_public_key.hex())

    def app_key(self, app_id: bytes) -> bytes:
        """Return the application's secp256k1 private key, 32 bytes."""
        return derive_key(self._seed, b"SIMULATED-KMS", b"app" + app_id)

    def app_key_signature(self, app_id: bytes) -> bytes:
        """Return the root's signature over the application's public key, 65 bytes."""
        public = coincurve.PrivateKey(self.app_key(app_id)).public_key.format()
        return self._sign(b"dstack-kms-issued:" + app_id + public)

    def rotate(self) -> None:
        """Give applications other keys to seal to: what was sealed before opens no more; the root stays."""
        self._rotations += 1

    def env_private_key(self, app_id: bytes) -> bytes:
        """Return the X25519 key that opens the application's variables, 32 bytes: for its guests only."""
        return derive_key(self._seed, b"SIMULATED-KMS", b"env" * (1 + self._rotations) + app_id)

    def env_public_key(self, app_id: bytes) -> bytes:
        """Return the X25519 key to seal to, 32 bytes."""
        return (
            X25519PrivateKey.from_private_bytes(self.env_private_key(app_id)).public_key().public_bytes_raw()
        )

    def sign_public_key(self, app_id: bytes, *, timestamp_s: int | None = None) -> bytes:
        """Return the statement about :meth:`env_public_key`, 65 bytes, with or without a time."""
        time = b"" if timestamp_s is None else timestamp_s.to_bytes(8)
        return self._sign(b"dstack-env-encrypt-pubkey:" + app_id + time + self.env_public_key(app_id))

    def _sign(self, message: bytes) -> bytes:
        return self._root.sign_recoverable(bytes(keccak256(message)), hasher=None)


def derive_key(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-SHA256."""
    return HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=salt, info=info).derive(secret)
