"""System calls that Python's standard library does not offer, each as a function that raises `OSError`.

Invariant: standard library only, and no state but the handle of the C library, so that a launcher started
with an empty environment can use it. The library is called with the interpreter lock held (`ctypes.PyDLL`),
because a process forked here must not find the lock taken.
"""

import ctypes
import os
import struct
from typing import NamedTuple

__all__ = [
    "CLONE_INTO_CGROUP",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "Child",
    "Resolve",
    "clone3",
    "close_except",
    "invoke",
    "openat2",
    "prctl",
    "sethostname",
    "unshare",
]

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
CLONE_PIDFD = 0x0000_1000
CLONE_INTO_CGROUP = 0x2_0000_0000

# From 424 on, system calls have one number on every architecture.
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437

SIGCHLD = 17
MAX_FD = 0x7FFF_FFFF  # one more than any descriptor

libc = ctypes.PyDLL(None, use_errno=True)


class Resolve:
    """How `openat2` may walk a path (openat2(2))."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08


class Child(NamedTuple):
    """A process made by `clone3`, as its parent knows it; ``pidfd`` belongs to the parent."""

    pid: int
    pidfd: int


def check(result: int, what: str) -> int:
    """Return ``result``, or raise the `OSError` of the call that ``what`` names when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def invoke(number: int, what: str, *arguments: int | bytes | None) -> int:
    """Make the system call ``number``; bytes are passed by address, None as a null pointer.

    Raises:
        OSError: the call failed; the message starts with ``what``.
    """
    passed = [ctypes.c_long(item) if isinstance(item, int) else ctypes.c_char_p(item) for item in arguments]
    return check(int(libc.syscall(ctypes.c_long(number), *passed)), what)


def clone3(flags: int, *, cgroup_fd: int | None = None) -> Child | None:
    """Fork with new namespaces (``flags``), into the version 2 control group ``cgroup_fd`` when one is given.

    Returns the child to the parent, and None in the child. The calling process must have one thread only.
    """
    pidfd = ctypes.c_int(-1)
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    arguments = struct.pack(
        "<11Q", flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0
    )
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(
        libc.syscall(ctypes.c_long(SYS_CLONE3), ctypes.c_char_p(arguments), ctypes.c_long(len(arguments)))
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return None
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return Child(pid, pidfd.value)


def openat2(folder_fd: int, path: str, flags: int, resolve: int) -> int:
    """Open ``path`` below ``folder_fd`` under the walking rules ``resolve``; returns a descriptor."""
    how = struct.pack("<3Q", flags | os.O_CLOEXEC, 0, resolve)
    return invoke(SYS_OPENAT2, f"openat2 {path!r}", folder_fd, os.fsencode(path), how, len(how))


def close_except(keep: set[int]) -> None:
    """Close every descriptor that is not in ``keep``."""
    first = 0
    for last in [*sorted(keep), MAX_FD]:
        if first < last:
            invoke(SYS_CLOSE_RANGE, "close_range", first, last - 1, 0)
        first = last + 1


def prctl(option: int, second: int = 0, third: int = 0, *, what: str) -> int:
    """Operate on the calling process (prctl(2)); the arguments that are not given are zero."""
    passed = (ctypes.c_ulong(item) for item in (second, third, 0, 0))
    return check(int(libc.prctl(ctypes.c_int(option), *passed)), f"prctl {what}")


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    check(int(libc.unshare(ctypes.c_int(flags))), f"unshare {flags:#x}")


def sethostname(name: str) -> None:
    """Set the host name of the current UTS namespace."""
    data = name.encode()
    check(int(libc.sethostname(ctypes.c_char_p(data), ctypes.c_size_t(len(data)))), "sethostname")
