"""Landlock: what a process and all that it starts may do to files, whatever mounts and modes allow.

Invariant: a second lock behind the read-only mounts, which needs no privilege and cannot be taken off. What
is not named as writable is not; no device node can be made anywhere. Where the kernel lacks it, or has one so
old that files could not be moved between folders (ABI 1), it is neither used nor claimed.
Source: landlock(7).
"""

import contextlib
import os
import struct
from collections.abc import Sequence

from sandbox.kernel.syscalls import invoke

__all__ = ["confine_files", "landlock_abi"]

SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
FIRST_USABLE_ABI = 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
LAST_RIGHT_OF_ABI_2 = 1 << 13
TRUNCATE = 1 << 14  # from ABI 3
SCOPE_ABSTRACT_UNIX_SOCKETS_AND_SIGNALS = 0b11  # from ABI 6
ABI_WITH_TRUNCATE = 3
ABI_WITH_SCOPES = 6
READ = EXECUTE | READ_FILE | READ_DIR


def landlock_abi() -> int:
    """Return the version of Landlock that can be used here; 0 where there is none, or a too old one."""
    with contextlib.suppress(OSError):
        abi = invoke(SYS_LANDLOCK_CREATE_RULESET, "landlock", None, 0, CREATE_RULESET_VERSION)
        return abi if abi >= FIRST_USABLE_ABI else 0
    return 0


def confine_files(abi: int, *, folders: Sequence[str], files_below: Sequence[str]) -> None:
    """Confine the calling process for good: everything can be read and executed.

    Abstract Unix sockets and signals reach no further than what this process starts, from ABI 6 on.

    Args:
        abi: what `landlock_abi` said, not 0.
        folders: below these everything can be done but to make device nodes.
        files_below: below these, files that are there can be written.

    Raises:
        OSError: a folder is missing, or the process may gain privileges (no_new_privs is not set).
    """
    truncate = TRUNCATE if abi >= ABI_WITH_TRUNCATE else 0
    every = (LAST_RIGHT_OF_ABI_2 << 1) - 1 | truncate
    scopes = SCOPE_ABSTRACT_UNIX_SOCKETS_AND_SIGNALS if abi >= ABI_WITH_SCOPES else 0
    # struct landlock_ruleset_attr: files, network ports (none are handled), scopes. An older kernel takes a
    # longer one whose unknown end is zero.
    attributes = struct.pack("<3Q", every, 0, scopes)
    ruleset = invoke(SYS_LANDLOCK_CREATE_RULESET, "landlock", attributes, len(attributes), 0)
    try:
        _allow(ruleset, "/", READ)
        for path in folders:
            _allow(ruleset, path, every & ~(MAKE_CHAR | MAKE_BLOCK))
        for path in files_below:
            _allow(ruleset, path, READ | WRITE_FILE | truncate)
        invoke(SYS_LANDLOCK_RESTRICT_SELF, "landlock", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", rights, folder)
        invoke(SYS_LANDLOCK_ADD_RULE, f"landlock {path}", ruleset, RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(folder)
