"""The files that a program left and that were asked for, written below a folder of this machine.

Invariant: a file is written only where nothing is, and never through a link: the program chose its name.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from blueprint.errors import BlueprintError
from blueprint.log import printable
from sandbox.kernel.files import lay_down
from sandbox.result import OutputFile

__all__ = ["left_out", "made_folder", "write_files"]


def made_folder(path: Path) -> Path:
    """Make the folder if it is missing: before a program runs, so that its work is not in vain.

    Raises:
        BlueprintError: it cannot be made, or not be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BlueprintError(f"--outputs-to {path}: {error.strerror}; name a folder") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise BlueprintError(f"--outputs-to {path}: it cannot be written; name a folder that can")
    return path


def write_files(folder: Path, files: Sequence[OutputFile]) -> None:
    """Write each file at its path below the folder.

    Raises:
        BlueprintError: something is there already, or the disk is full; files before it are written.
    """
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for file in files:
            try:
                lay_down(folder_fd, [(file.path, file.content)], None)
            except OSError as error:
                shown = printable(str(folder / file.path), keep_newlines=False)
                raise BlueprintError(
                    f"{shown}: {error.strerror}; the program ran, but its files are written only where "
                    "nothing is: name another folder with --outputs-to"
                ) from error
    finally:
        os.close(folder_fd)


def left_out(asked: Sequence[str], files: Sequence[OutputFile]) -> list[str]:
    """Return the paths at which, and below which, the program left no regular file."""
    return [
        path
        for path in asked
        if not any(file.path == path or file.path.startswith(f"{path}/") for file in files)
    ]
