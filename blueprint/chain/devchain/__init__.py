"""The embedded chain: an Ethereum node in this process, served as JSON-RPC on loopback.

Invariant: it listens on loopback only, and keeps nothing once it is stopped.
"""

from blueprint.chain.devaccounts import TEST_MNEMONIC, DevAccount
from blueprint.chain.devchain.chain import DevChain

__all__ = ["TEST_MNEMONIC", "DevAccount", "DevChain"]
