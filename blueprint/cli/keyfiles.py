"""The operator's keys on disk: encrypted keystores (version 3), and how their password is asked for.

Invariant: a key is on disk only encrypted, in a file that its account alone can read, and only whole.
"""

import contextlib
import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from eth_utils.address import to_checksum_address

from blueprint.chain.signer import Signer
from blueprint.cli.session import Session
from blueprint.errors import ConfigError

__all__ = ["KeyFile", "ask_password", "list_keys", "read_secret_file", "save_key"]

_SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """One keystore file."""

    address: str
    """With checksum, as people copy it."""
    path: Path


def save_key(folder: Path, signer: Signer, password: str) -> KeyFile:
    """Encrypt a signer's key with scrypt and keep it as ``<address>.json``.

    Raises:
        ConfigError: the folder already has a key with this address, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}; set --state-dir") from error
    path = folder / f"0x{signer.address.hex()}.json"
    signer.write_keystore(path, password)
    return KeyFile(address=to_checksum_address(signer.address), path=path)


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
