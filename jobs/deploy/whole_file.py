"""Writes small files as a whole or not at all, readable by their account alone.

Invariant: a reader sees the old bytes or the new ones, also after the power failed; what was begun and not
finished leaves nothing.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Replace a file, or make it.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file stays.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
