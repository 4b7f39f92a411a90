"""A folder for one run, which also goes away after a run that was killed.

Invariant: a folder is removed only by the run that made it, or once that run has ended: its lock says which.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["scratch_folder"]


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Remove what killed runs with this prefix have left, then yield a new folder and remove it at the end.

    Args:
        prefix: how the folder's name begins, in the system's folder for temporary files; one program's own.
    """
    for stale in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if stale.stat().st_uid == os.geteuid():
                lock = _lock(stale)
                shutil.rmtree(stale, ignore_errors=True)
                os.close(lock)
    folder, lock = _made(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(prefix: str) -> tuple[Path, int]:
    """Make a folder and take its lock; again when another run took it for stale in between."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            return folder, _lock(folder)


def _lock(folder: Path) -> int:
    """Take the folder's lock, which the kernel gives up for a process that is killed; close it to give it up.

    Raises:
        OSError: another process holds it, or the path is no folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
