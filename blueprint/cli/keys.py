"""``blueprint keys``: make, import and list the operator's keys."""

import sys
from pathlib import Path

import click
from rich.table import Table

from blueprint.chain.signer import Signer
from blueprint.cli.keyfiles import (
    KeyFile,
    ask_password,
    list_keys,
    read_secret_file,
    save_key,
)
from blueprint.cli.session import Session, node_command

__all__ = ["command"]

_SETTINGS = ("state_dir", "keystore_password_file")


@click.group("keys", help="Make, import and list the operator's keys.")
def command() -> None:
    """Group the key commands."""


@command.command("new", help="Make a new random key, encrypted in the state folder.")
@node_command(settings=_SETTINGS)
def new(session: Session) -> None:
    """Make a key from the system's random source."""
    _save(session, Signer.generate(), "made")


@command.command(
    "import", help="Import a private key (64 hexadecimal digits) from a file, or from stdin with -."
)
@click.argument("source", type=click.Path(path_type=Path))
@node_command(settings=_SETTINGS)
def import_key(session: Session, *, source: Path) -> None:
    """Read a private key, encrypt it, keep it. The source is left as it is."""
    text = sys.stdin.read(4096) if str(source) == "-" else read_secret_file(source)
    session.redactor.add(text)
    _save(session, Signer.from_hex(text), "imported")


@command.command("list", help="List the keys in the state folder.")
@node_command(settings=("state_dir",))
def list_command(session: Session) -> None:
    """Print address and file of every keystore."""
    folder = session.state_dir / "keys"
    keys = list_keys(folder)
    table = Table("address", "file", box=None, pad_edge=False)
    for key in keys:
        table.add_row(key.address, str(key.path))
    session.emit([_as_json(key) for key in keys], table if keys else None)
    if not keys:
        session.say(f"no keys in {folder}")
        session.suggest("blueprint keys new")


def _save(session: Session, signer: Signer, verb: str) -> None:
    saved = save_key(session.state_dir / "keys", signer, ask_password(session, is_new=True))
    session.emit(_as_json(saved), saved.address)
    session.say(f"{verb} and encrypted: {saved.path}", "green")
    session.say(
        "Whoever has this file and its password is the operator. Back both up; neither can be restored."
    )
    session.suggest(f"blueprint run --keystore {saved.path} --contract 0x... --service-ids 0")


def _as_json(key: KeyFile) -> dict[str, str]:
    return {"address": key.address, "path": str(key.path)}
