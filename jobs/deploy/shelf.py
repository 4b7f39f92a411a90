"""Compose texts that the operator offers by digest, so that a call need not carry them.

Invariant: the text returned has the digest that was asked for, whatever the files are called.
"""

import hashlib
from pathlib import Path

__all__ = ["ComposeShelf"]

_MAX_FILES = 1000
_MAX_TEXT_BYTES = 200 * 1024
_SUFFIXES = (".yml", ".yaml")


class ComposeShelf:
    """A folder with compose files.

    Args:
        folder: its ``*.yml`` and ``*.yaml`` are offered, without those in folders below; it is read at each
            call, so that a file can be added while the node runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: bytes) -> str | None:
        """Return the text with this SHA-256, or None; a file that cannot be read is passed over."""
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix in _SUFFIXES)
        except OSError:
            return None
        for path in paths[:_MAX_FILES]:
            try:
                if path.stat().st_size > _MAX_TEXT_BYTES:
                    continue
                content = path.read_bytes()
                if hashlib.sha256(content).digest() == digest:
                    return content.decode()
            except (OSError, UnicodeDecodeError):
                continue
        return None
