"""The life of a guest: a process apart, which goes on when the command that started it has ended.

Invariant: whoever holds the lock belongs to the guest's process group, so the group is ended only while the
lock is held, and never by a number that another process has by now.
Source of the rule: flock(2): a lock belongs to the open file, which children inherit, and goes with the last.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from jobs.deploy.errors import DeployError

__all__ = ["Lease", "claim", "try_lock"]

_POLL_S = 0.02
_TRIES = 10
_START_S = 30.0
_END_S = 10.0


class Lease:
    """Tells whether a guest lives, starts it and ends it.

    Args:
        path: the lock file; it holds the guest's process id.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_held(self) -> bool:
        """Say whether the guest, or a program that it started, lives."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    async def start(self, command: Sequence[str], log: Path) -> None:
        """Start a guest, unless one lives; the number of the lock's descriptor is appended to the command."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(_TRIES):
                if try_lock(descriptor):
                    # The lock passes to the guest with the descriptor: at no moment is it free.
                    os.ftruncate(descriptor, 0)
                    self._spawn([*command, str(descriptor)], descriptor, log)
                    return
                # Somebody who looks whether the lock is held holds it himself for a moment.
                await asyncio.sleep(_POLL_S)
        finally:
            os.close(descriptor)

    async def end(self) -> None:
        """End the guest and what it started, at once; none is no failure."""
        try:
            async with asyncio.timeout(_START_S + _END_S):
                while self.is_held():
                    # A guest that was started a moment ago has not written its number yet.
                    if number := self._path.read_text().strip():
                        _kill_group(int(number))
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise DeployError(
                f"the guest of {self._path.parent.name} does not end",
                advice=f"end the process that has {self._path} open",
            ) from error

    def _spawn(self, command: Sequence[str], descriptor: int, log: Path) -> None:
        # The guest's environment is its own: what the caller's holds is no business of containers.
        with log.open("ab") as output:
            subprocess.run(
                ["setsid", "--fork", *command],
                check=True,
                cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(descriptor,),
                timeout=_START_S,
            )


def claim(descriptor: int) -> None:
    """Write the own process id into the lock that was handed over; the guest's first act."""
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def try_lock(descriptor: int) -> bool:
    """Lock a file for this process and say whether that worked; it never waits."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill_group(number: int) -> None:
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        return
