"""Giving up every privilege for good: identity, capabilities, and the ways to regain them.

Invariant: after `drop_privileges` no exec, file capability, set-user-id bit or signal brings anything back
(capabilities(7), prctl(2)).
"""

import contextlib
import ctypes
import os
import struct

from sandbox.kernel.syscalls import check, libc, prctl

__all__ = ["INIT_ID", "INSIDE_ID", "die_with_parent", "drop_privileges", "hide_memory"]

INSIDE_ID = 1000
"""User and group number of the program as seen inside."""

INIT_ID = 1
"""User and group number of the stage's init as seen inside."""

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LINUX_CAPABILITY_VERSION_3 = 0x2008_0522
LAST_POSSIBLE_CAPABILITY = 63
# SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_NO_CAP_AMBIENT_RAISE, each with its lock, and the lock of
# SECBIT_KEEP_CAPS, which stays off.
SECUREBITS = 0b1110_1111
SIGKILL = 9


def drop_privileges(identity: int) -> None:
    """Become the user and group ``identity`` with no capability in any set.

    The caller is root of its user name space's making and has already cleared its supplementary groups.
    """
    for number in range(LAST_POSSIBLE_CAPABILITY + 1):
        with contextlib.suppress(OSError):  # EINVAL: beyond the kernel's last capability
            prctl(PR_CAPBSET_DROP, number, what="drop from the bounding set")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, what="clear the ambient set")
    prctl(PR_SET_SECUREBITS, SECUREBITS, what="lock the secure bits")
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)
    header = struct.pack("<Ii", LINUX_CAPABILITY_VERSION_3, 0)
    check(int(libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1, what="no new privileges")


def hide_memory() -> None:
    """Keep other processes of the same user from reading this one (memory, environment, descriptors)."""
    prctl(PR_SET_DUMPABLE, 0, what="not dumpable")


def die_with_parent(signal_number: int = SIGKILL) -> None:
    """Ask for a signal when the parent dies. A change of identity clears it: call again after one."""
    prctl(PR_SET_PDEATHSIG, signal_number, what="parent death signal")
