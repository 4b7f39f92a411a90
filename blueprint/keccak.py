"""keccak-256 by the native library, the one hash of the EVM.

Invariant: this is Keccak as Ethereum uses it, not the later standard SHA3-256, which pads differently.
"""

import sha3

from blueprint.types import Hash

__all__ = ["keccak256"]


def keccak256(data: bytes) -> Hash:
    """Return the 32 bytes of keccak-256 of ``data``."""
    return Hash(sha3.keccak_256(data).digest())
