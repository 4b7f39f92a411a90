"""The funded accounts of a development chain: the well-known ones of the public test mnemonic.

Invariant: the list depends only on the mnemonic and the count, so every start offers the same keys.
"""

from dataclasses import dataclass, field

from eth_account.hdaccount import seed_from_mnemonic
from eth_account.hdaccount.deterministic import HDPath
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_checksum_address

from blueprint.types import Address

__all__ = ["TEST_MNEMONIC", "DevAccount", "derive_accounts"]

TEST_MNEMONIC = "test test test test test test test test test test test junk"
"""Published with every Ethereum development chain: its keys are no secret, its accounts worth nothing."""

_DERIVATION_PATH = "m/44'/60'/0'/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevAccount:
    """An account whose key everybody knows: funded at genesis and unlocked for ``eth_sendTransaction``."""

    address: Address
    private_key: bytes = field(repr=False)
    """32 bytes, secp256k1."""

    @property
    def address_hex(self) -> str:
        """The address with its EIP-55 checksum."""
        return to_checksum_address(self.address)


def derive_accounts(count: int, *, mnemonic: str = TEST_MNEMONIC) -> tuple[DevAccount, ...]:
    """Derive the first ``count`` accounts on the path of BIP-44 that Ethereum wallets use."""
    seed = seed_from_mnemonic(mnemonic, passphrase="")
    keys = (PrivateKey(HDPath(f"{_DERIVATION_PATH}/{index}").derive(seed)) for index in range(count))
    return tuple(
        DevAccount(address=Address(key.public_key.to_canonical_address()), private_key=key.to_bytes())
        for key in keys
    )
