"""A lock on a file, held by a descriptor: the kernel gives it up for a process that is killed.

Invariant: who holds a `FileLock` holds it on the file that its path names, not on one that was removed
between opening and locking.
"""

import contextlib
import fcntl
import os
from pathlib import Path

__all__ = ["FileLock", "try_lock"]


class FileLock:
    """A lock that is held; `close` gives it up."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_at(self, path: Path) -> bool:
        """Say whether ``path`` still names the locked file."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._descriptor), path.lstat())
        return False

    def touch(self) -> None:
        """Set the file's time to now."""
        os.utime(self._descriptor)

    def close(self) -> None:
        """Give the lock up; safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def try_lock(path: Path, *, is_shared: bool = False, may_make: bool = False) -> FileLock | None:
    """Take the lock; None when somebody else holds it.

    Args:
        path: the file.
        is_shared: several may hold the lock at once, but none that is not shared.
        may_make: make a file that is missing.

    Raises:
        OSError: the file cannot be opened; FileNotFoundError when it is missing and may not be made.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if may_make else 0)
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        lock = FileLock(descriptor)
        if lock.is_at(path):
            return lock
        lock.close()
