"""The empty folders that unprivileged sandboxes mount on, and what a killed service left of them.

Invariant: a folder's name says which service made it, so that only what belonged to a dead one is removed,
and the processes that still hold it are killed first.
"""

import contextlib
import os
import signal
import tempfile
from pathlib import Path

from sandbox.kernel.grouptree import own_name, owner_lives

__all__ = ["new_mount_point", "remove_leftovers"]

PREFIX = "sandbox-"


def new_mount_point() -> Path:
    """Make an empty folder among the temporary files."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{own_name()}-"))


def remove_leftovers() -> None:
    """Kill the processes of services that no longer live, and remove their mount points."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if owner_lives(path.name.removeprefix(PREFIX)):
            continue
        # SECURITY: bubblewrap sees its parent's death only from some moment of its start on; who was killed
        # before that left a program that nobody watches (test_leftovers_of_a_killed_service_...).
        for pid in _processes_with(str(path)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # another user's
            path.rmdir()


def _processes_with(text: str) -> list[int]:
    """List the processes whose command line names ``text``."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text in (path / "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(path.name))
    return found
