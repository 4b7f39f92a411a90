"""Seals environment variables so that only one application's CVM can read them.

The wire format is the guest's: ``ephemeral public key[32] || iv[12] || AES-256-GCM ciphertext || tag[16]``.
The key is the X25519 secret itself (no derivation, no associated data); the plaintext is compact JSON in
UTF-8, ``{"env":[{"key":...,"value":...}, ...]}``, in the order given. Sealing hides the variables; it does
not say who sealed them: anyone who knows the app id can ask for the public key and seal others.

Invariant: a value leaves this module only as ciphertext, or as the ``value`` of a :class:`SecretVariable`;
never in an error, a ``repr``, a pickle, or a local variable of a frame that raises.
Source of the rule: dstack, the guest's ``encrypted_env`` (format and limits); RFC 7748, section 6.1.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import override

from blueprint.errors import SealingError
from blueprint.foreign_json import parse_json

__all__ = [
    "MAX_KEY_BYTES",
    "MAX_SEALED_BYTES",
    "MAX_VALUE_BYTES",
    "MAX_VARIABLES",
    "SecretVariable",
    "check_variables",
    "seal",
    "unseal",
]

MAX_VARIABLES = 1024
MAX_KEY_BYTES = 255
MAX_VALUE_BYTES = 128 * 1024
MAX_SEALED_BYTES = 256 * 1024
"""What the guest reads of the sealed file, in bytes (not in hexadecimal digits)."""

_X25519_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16
_KEY_PATTERN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class SecretVariable:
    """An environment variable whose value must not be seen.

    It cannot be pickled or copied, because both write the value somewhere else.
    """

    key: str
    value: str = field(repr=False)

    @override
    def __reduce__(self) -> NoReturn:
        # SECURITY: a pickle would hold the value in clear (test_a_variable_cannot_be_pickled_or_copied).
        raise TypeError("a SecretVariable cannot be pickled or copied")


def check_variables(variables: Sequence[SecretVariable]) -> None:
    """Check everything that the guest would refuse at boot.

    Raises:
        SealingError: more than 1,024 variables; a key that is no identifier, is longer than 255 bytes or
            occurs twice; a value of more than 128 KiB in UTF-8, or one that no environment can hold; together
            more than a sealed file of 256 KiB. The message names the key, never the value.
    """
    if len(variables) > MAX_VARIABLES:
        raise SealingError(f"{len(variables)} variables: the guest accepts at most {MAX_VARIABLES}")
    seen: set[str] = set()
    for variable in variables:
        problem = _problem_of(variable)
        if problem is None and variable.key in seen:
            problem = "occurs twice; remove one of the two"
        if problem is not None:
            # SECURITY: nothing of the value is in the message (test_no_error_shows_a_value).
            raise SealingError(f"variable {_shown(variable.key)}: {problem}")
        seen.add(variable.key)
    sealed_bytes = _X25519_BYTES + _IV_BYTES + len(_plaintext(variables)) + _TAG_BYTES
    if sealed_bytes > MAX_SEALED_BYTES:
        raise SealingError(
            f"{len(variables)} variables make a sealed file of {sealed_bytes} bytes: the guest accepts "
            f"at most {MAX_SEALED_BYTES}; shorten or drop some"
        )


def seal(
    variables: Sequence[SecretVariable], public_key: bytes, *, ephemeral_key: bytes | None = None
) -> bytes:
    """Encrypt variables for the CVM that holds the other half of ``public_key``.

    Args:
        variables: checked by :func:`check_variables` first; their order is kept.
        public_key: the application's X25519 key, 32 bytes; verify who vouches for it before you trust it.
        ephemeral_key: 32 bytes, for test vectors only: one that is used twice gives the contents away.

    Returns:
        The sealed bytes; the cloud's API takes them as lower-case hexadecimal digits.

    Raises:
        SealingError: a variable breaks a limit, or the key has another length or low order.
    """
    check_variables(variables)
    sender = _private_key(os.urandom(_X25519_BYTES) if ephemeral_key is None else ephemeral_key)
    cipher = AESGCM(_shared_secret(sender, public_key))
    iv = os.urandom(_IV_BYTES)
    return sender.public_key().public_bytes_raw() + iv + cipher.encrypt(iv, _plaintext(variables), None)


def unseal(sealed: bytes, private_key: bytes) -> tuple[SecretVariable, ...]:
    """Decrypt what :func:`seal` made, as the guest does.

    Args:
        sealed: the raw bytes.
        private_key: the application's X25519 private key, 32 bytes.

    Raises:
        SealingError: it was not sealed for this key, was changed, or breaks a limit of the guest.
    """
    if not _X25519_BYTES + _IV_BYTES + _TAG_BYTES <= len(sealed) <= MAX_SEALED_BYTES:
        raise SealingError(
            f"sealed variables: {len(sealed)} bytes are too few or more than {MAX_SEALED_BYTES}"
        )
    variables = _opened(
        _shared_secret(_private_key(private_key), sealed[:_X25519_BYTES]), sealed[_X25519_BYTES:]
    )
    if variables is None:
        raise SealingError("sealed variables: not sealed for this key, or changed on the way")
    check_variables(variables)
    return variables


def _problem_of(variable: SecretVariable) -> str | None:
    if not _KEY_PATTERN.fullmatch(variable.key):
        return "a name holds ASCII letters, digits and '_', and does not begin with a digit"
    if len(variable.key) > MAX_KEY_BYTES:
        return f"the name has {len(variable.key)} bytes; the guest accepts at most {MAX_KEY_BYTES}"
    if "\0" in variable.value:
        return "the value holds a NUL character, which no environment can hold"
    try:
        value_bytes = len(variable.value.encode())
    except UnicodeEncodeError:  # its message and its `object` would show the value
        return "the value is not valid Unicode (a lone surrogate)"
    if value_bytes > MAX_VALUE_BYTES:
        return f"the value has {value_bytes} bytes; the guest accepts at most {MAX_VALUE_BYTES}"
    return None


def _shown(key: str) -> str:
    return repr(key if len(key) <= _SHOWN_CHARACTERS else f"{key[:_SHOWN_CHARACTERS]}...")


def _plaintext(variables: Sequence[SecretVariable]) -> bytes:
    entries = [{"key": variable.key, "value": variable.value} for variable in variables]
    return json.dumps({"env": entries}, ensure_ascii=False, separators=(",", ":")).encode()


def _opened(secret: bytes, rest: bytes) -> tuple[SecretVariable, ...] | None:
    """Return the variables, or None: an error raised here would carry the plaintext in its frame."""
    try:
        content = parse_json(AESGCM(secret).decrypt(rest[:_IV_BYTES], rest[_IV_BYTES:], None))
    except (InvalidTag, ValueError):
        return None
    entries = content.get("env") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return None
    variables = []
    for entry in entries:
        match entry:
            case {"key": str(key), "value": str(value)}:
                variables.append(SecretVariable(key, value))
            case _:
                return None
    return tuple(variables)


def _private_key(key: bytes) -> X25519PrivateKey:
    if len(key) != _X25519_BYTES:
        raise SealingError(f"X25519 private key: expected {_X25519_BYTES} bytes, received {len(key)}")
    return X25519PrivateKey.from_private_bytes(key)


def _shared_secret(private_key: X25519PrivateKey, public_key: bytes) -> bytes:
    if len(public_key) != _X25519_BYTES:
        raise SealingError(f"X25519 public key: expected {_X25519_BYTES} bytes, received {len(public_key)}")
    try:
        # SECURITY: OpenSSL refuses the all-zero secret of a key of low order, with which
        # anybody could read the variables (test_a_key_of_low_order_is_refused).
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        raise SealingError("X25519 public key: has low order, so that anybody could decrypt") from None
