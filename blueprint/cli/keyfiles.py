"""The operator's keys on disk: encrypted keystores (version 3), and how their password is asked for.

Invariant: a key is on disk only encrypted, in a file that its account alone can read, and only whole.
"""

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from coincurve import PrivateKey
from eth_account import Account
from eth_keyfile.keyfile import create_keyfile_json
from eth_utils.address import to_checksum_address

from blueprint.cli.session import Session
from blueprint.errors import ConfigError

__all__ = ["KeyFile", "ask_password", "list_keys", "parse_private_key", "read_secret_file", "save_key"]

_SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """One keystore file."""

    address: str
    """With checksum, as people copy it."""
    path: Path


def parse_private_key(text: str) -> bytes:
    """Parse 64 hexadecimal digits, with or without ``0x``, into a usable private key.

    Raises:
        ConfigError: anything else, or a number outside the curve's order. The text is never repeated.
    """
    digits = text.strip().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        raise ConfigError(
            f"expected a private key of 64 hexadecimal digits, received {len(digits)} characters"
        )
    key = bytes.fromhex(digits)
    try:
        PrivateKey(key)
    except ValueError:
        raise ConfigError(
            "these 64 digits are no private key: zero, or above the order of the curve"
        ) from None
    return key


def save_key(folder: Path, key: bytes, password: str) -> KeyFile:
    """Encrypt a private key of 32 bytes with scrypt and keep it as ``<address>.json``.

    Raises:
        ConfigError: the folder already has a key with this address.
        OSError: the folder cannot be written.
    """
    address = Account.from_key(key).address
    path = folder / f"{address.lower()}.json"
    if path.exists():
        raise ConfigError(
            f"{path} exists already; move it away first to encrypt this key with another password"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps(create_keyfile_json(key, password.encode(), version=3))
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return KeyFile(address=address, path=path)


def list_keys(folder: Path) -> list[KeyFile]:
    """List the keystores of a folder by address; files that are no keystores are passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            address = json.loads(path.read_text(encoding="utf-8"))["address"].removeprefix("0x")
            found.append(KeyFile(address=_with_checksum(address), path=path))
    return found


def ask_password(session: Session, *, is_new: bool) -> str:
    """Return the keystore's password: from the environment, a file, or a prompt on a terminal.

    Raises:
        ConfigError: none of the three gives one, the file is unreadable or readable by others, or a new
            password is shorter than eight characters.
    """
    settings = session.settings
    if settings.keystore_password is not None:
        password = settings.keystore_password.get_secret_value()
    elif settings.keystore_password_file is not None:
        password = read_secret_file(settings.keystore_password_file).split("\n", 1)[0].rstrip("\r")
    elif sys.stdin.isatty():
        password = click.prompt(
            "Password of the keystore", hide_input=True, confirmation_prompt=is_new, err=True
        )
    else:
        raise ConfigError(
            "the keystore needs a password: set BLUEPRINT_KEYSTORE_PASSWORD, "
            "or give --keystore-password-file FILE"
        )
    session.redactor.add(password)
    if is_new and len(password) < _SHORTEST_PASSWORD:
        raise ConfigError(
            f"the password has {len(password)} characters, at least {_SHORTEST_PASSWORD} are needed"
        )
    return password


def read_secret_file(path: Path) -> str:
    """Read a small text file that no other account may read.

    Raises:
        ConfigError: missing, unreadable, or readable by every account; the message holds the fix.
    """
    try:
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(f"{path} is open to every account; run: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', '') or error}") from error


def _with_checksum(address: str) -> str:
    from_hex = bytes.fromhex(address)
    if len(from_hex) != 20:  # noqa: PLR2004 - an address
        raise ValueError(address)
    return to_checksum_address(from_hex)
