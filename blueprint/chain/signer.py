"""The operator's key: signs EIP-1559 transactions, and is read from and written to a keystore.

Source of the rule: EIP-1559 (the transaction), EIP-2718 (its envelope), EIP-55 (checksummed addresses), Web3
Secret Storage version 3 (the keystore), Ethereum Yellow Paper, appendix B (RLP).
Invariant: the key is never shown: not by ``repr``, not in an error, not in a file that others can read.
"""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import coincurve
from typing_extensions import override

from blueprint.errors import ConfigError
from blueprint.keccak import keccak256
from blueprint.types import Address, Hash

__all__ = ["SignedTransaction", "Signer", "checksum_address", "parse_checksum_address"]

_KEY_BYTES = 32
_ADDRESS_BYTES = 20
_MAX_FILE_BYTES = 64 * 1024
_EIP1559_TYPE = b"\x02"
_EMPTY_LIST = b"\xc0"
_SHORT = 55
_KEYSTORE_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTransaction:
    """A transaction ready for ``eth_sendRawTransaction``."""

    raw: bytes = field(repr=False)
    hash: Hash
    """keccak-256 of ``raw``: known before it is sent, because replies get lost."""


class Signer:
    """Holds one secp256k1 key and signs with it.

    Args:
        key: the 32 bytes of the private key.

    Raises:
        ConfigError: these bytes are no private key.
    """

    __slots__ = ("_key", "address")

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ConfigError(f"private key: expected {_KEY_BYTES} bytes, received {len(key)}")
        try:
            self._key = coincurve.PrivateKey(key)
        except ValueError:
            # No cause is chained: the library's message may hold what it was given.
            raise ConfigError("private key: expected a number from 1 to the order of secp256k1") from None
        self.address = Address(keccak256(self._key.public_key.format(compressed=False)[1:])[-_ADDRESS_BYTES:])
        """The account's address, 20 bytes."""

    @classmethod
    def generate(cls) -> Self:
        """Return a signer with a new random key."""
        while True:
            with contextlib.suppress(ConfigError):
                return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Return the signer of a key given as 64 hexadecimal digits, with or without ``0x``.

        Raises:
            ConfigError: the text is no such key; it is not quoted.
        """
        digits = text.strip().removeprefix("0x")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            raise ConfigError(
                "private key: expected 64 hexadecimal digits; received other characters"
            ) from None
        return cls(key)

    @classmethod
    def from_secret_file(cls, path: Path) -> Self:
        """Return the signer of a key that a file holds as hexadecimal digits.

        Raises:
            ConfigError: the file cannot be read, can be read by others, or holds no key.
        """
        with _naming(path):
            return cls.from_hex(_read_private(path, what="key file"))

    @classmethod
    def from_keystore(cls, path: Path, password: str) -> Self:
        """Return the signer of an encrypted keystore; takes most of a second, by design of the format.

        Raises:
            ConfigError: the file cannot be read, is no version 3 keystore, or the password is wrong.
        """
        from eth_keyfile.keyfile import decode_keyfile_json  # noqa: PLC0415 - half a second that few pay

        text = _read_private(path, what="keystore")
        try:
            keystore = json.loads(text)
            if not isinstance(keystore, dict) or keystore.get("version") != _KEYSTORE_VERSION:
                raise ConfigError(f"keystore {path}: expected a JSON object with version {_KEYSTORE_VERSION}")
            key = decode_keyfile_json(keystore, password.encode())
        except json.JSONDecodeError:
            raise ConfigError(f"keystore {path}: expected JSON; is it a keystore?") from None
        except ValueError:
            raise ConfigError(f"keystore {path}: the password is wrong, or the file is damaged") from None
        except (KeyError, TypeError, NotImplementedError) as exc:
            raise ConfigError(
                f"keystore {path}: not a complete version {_KEYSTORE_VERSION} keystore ({type(exc).__name__})"
            ) from None
        signer = cls(key)
        stated = str(keystore.get("address", "")).lower().removeprefix("0x")
        if stated and stated != signer.address.hex():
            raise ConfigError(
                f"keystore {path}: it says address 0x{stated}, but its key is that of "
                f"{checksum_address(signer.address)}; the file is damaged"
            )
        return signer

    def write_keystore(self, path: Path, password: str) -> None:
        """Write the key, encrypted with scrypt, to a new file that only its owner can read.

        Raises:
            ConfigError: the password is empty, the file exists, or it cannot be written; nothing is left.
        """
        from eth_keyfile.keyfile import create_keyfile_json  # noqa: PLC0415 - half a second that few pay

        if not password:
            raise ConfigError("keystore password: expected at least one character")
        keystore = create_keyfile_json(self._key.secret, password.encode(), version=_KEYSTORE_VERSION)
        # Written under another name and linked to its place: it appears whole or not at all, over no other.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            try:
                with open(  # Path.open takes no opener
                    draft, "x", encoding="ascii", opener=_open_private
                ) as file:
                    json.dump(keystore, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(draft, path)
            finally:
                draft.unlink(missing_ok=True)
        except FileExistsError:
            raise ConfigError(f"keystore {path}: it exists already; choose another name or move it") from None
        except OSError as exc:
            raise ConfigError(f"keystore {path}: cannot write it: {exc.strerror}") from exc

    def sign_transaction(
        self,
        *,
        chain_id: int,
        nonce: int,
        to: Address | None,
        data: bytes,
        gas: int,
        max_fee_wei: int,
        max_priority_fee_wei: int,
        value_wei: int = 0,
    ) -> SignedTransaction:
        """Return a signed EIP-1559 transaction with an empty access list.

        Args:
            chain_id: EIP-155 chain id.
            nonce: the account's next unused nonce, or that of the transaction to replace.
            to: 20 bytes, or None to create a contract.
            data: call data or creation code.
            gas: the gas limit.
            max_fee_wei: the most to pay for a unit of gas, base fee included.
            max_priority_fee_wei: the tip for a unit of gas; not above ``max_fee_wei``.
            value_wei: what is sent along.

        Raises:
            ValueError: a number is negative, the tip is above the fee, or ``to`` is no address.
        """
        if to is not None and len(to) != _ADDRESS_BYTES:
            raise ValueError(f"to: expected {_ADDRESS_BYTES} bytes or None, received {len(to)} bytes")
        if max_priority_fee_wei > max_fee_wei:
            raise ValueError(f"expected a tip of at most {max_fee_wei} wei, received {max_priority_fee_wei}")
        fields = b"".join(
            (
                _rlp_integer(chain_id),
                _rlp_integer(nonce),
                _rlp_integer(max_priority_fee_wei),
                _rlp_integer(max_fee_wei),
                _rlp_integer(gas),
                _rlp_bytes(to or b""),
                _rlp_integer(value_wei),
                _rlp_bytes(data),
                _EMPTY_LIST,
            )
        )
        signature = self._sign(keccak256(_EIP1559_TYPE + _rlp_list(fields)))
        raw = _EIP1559_TYPE + _rlp_list(fields + signature)
        return SignedTransaction(raw=raw, hash=keccak256(raw))

    @override
    def __repr__(self) -> str:
        return f"Signer({checksum_address(self.address)})"

    @override
    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Signer holds a private key and cannot be pickled or copied")

    def _sign(self, digest: Hash) -> bytes:
        """Return parity, r and s, each as RLP."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        r, s, parity = signature[:32], signature[32:64], signature[64]
        return (
            _rlp_integer(parity)
            + _rlp_integer(int.from_bytes(r, "big"))
            + _rlp_integer(int.from_bytes(s, "big"))
        )


def checksum_address(address: Address) -> str:
    """Return an address as people compare it: hexadecimal with its checksum in the letters' case (EIP-55)."""
    digits = address.hex()
    proof = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) > 7 else digit  # noqa: PLR2004 - EIP-55: the upper half of a nibble
        for digit, nibble in zip(digits, proof, strict=False)
    )


def parse_checksum_address(text: str) -> Address:
    """Return the address that a person wrote: checksummed, or all in one case.

    Raises:
        ConfigError: it is no address, or its checksum is wrong.
    """
    digits = text.strip().removeprefix("0x")
    try:
        address = Address(bytes.fromhex(digits))
    except ValueError:
        address = Address(b"")
    if len(address) != _ADDRESS_BYTES or len(digits) != 2 * _ADDRESS_BYTES:
        raise ConfigError(f"address: expected 0x and 40 hexadecimal digits, received {text.strip()[:60]!r}")
    if digits not in {digits.lower(), digits.upper()} and checksum_address(address) != "0x" + digits:
        raise ConfigError(f"address: the checksum of {text.strip()} is wrong; check for a typing error")
    return address


def _rlp_integer(value: int) -> bytes:
    if value < 0:
        raise ValueError(f"expected a non-negative integer, received {value}")
    return _rlp_bytes(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _rlp_bytes(data: bytes) -> bytes:
    if len(data) == 1 and data[0] < 0x80:  # noqa: PLR2004 - RLP: a byte that is its own encoding
        return data
    return _rlp_head(len(data), 0x80) + data


def _rlp_list(items: bytes) -> bytes:
    return _rlp_head(len(items), 0xC0) + items


def _rlp_head(length: int, base: int) -> bytes:
    if length <= _SHORT:
        return bytes([base + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([base + _SHORT + len(size)]) + size


def _open_private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _read_private(path: Path, *, what: str) -> str:
    """Return the text of a small file that nobody but its owner can read."""
    try:
        # Opened first and then examined, so that what was examined is what is read; a pipe must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise ConfigError(f"{what} {path}: cannot read it: {exc.strerror}") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{what} {path}: expected a regular file")
        # SECURITY: the test of this is called test_a_secret_that_others_can_read_is_refused.
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigError(f"{what} {path}: others can read it (mode {mode:04o}); run: chmod 600 {path}")
        content = os.read(descriptor, _MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{what} {path}: cannot read it: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"{what} {path}: expected at most {_MAX_FILE_BYTES} bytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path}: expected text, received binary data") from None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name in front of an error about its content."""
    try:
        yield
    except ConfigError as exc:
        message = str(exc)
        raise ConfigError(message if str(path) in message else f"key file {path}: {message}") from None
