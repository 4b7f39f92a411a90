"""Mounts by descriptor: made detached, configured, and only then attached.

Invariant: nothing here touches the mount table of the caller's name space until `attach`; a mount that was
made and never attached is gone when its descriptor closes. Needs Linux 5.12 (mount_setattr(2)).
"""

import ctypes
import os
import struct

from sandbox.kernel.syscalls import check, invoke, libc

__all__ = [
    "attach",
    "clone_tree",
    "detach",
    "enter_root",
    "make_private",
    "new_proc",
    "new_tmpfs",
    "restrict",
]

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_MOUNT_SETATTR = 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2


def new_tmpfs(*, size_bytes: int, inodes: int, mode: int = 0o755, can_exec: bool = True) -> int:
    """Make a detached tmpfs of at most that many bytes and inodes (its own root counts as one).

    Returns the descriptor of its root folder.
    """
    options = {"size": str(size_bytes), "nr_inodes": str(inodes), "mode": f"{mode:o}"}
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (0 if can_exec else MOUNT_ATTR_NOEXEC)
    return _new_mount("tmpfs", options, attributes)


def new_proc() -> int:
    """Make a detached proc of the caller's process name space; others see there what they may trace."""
    return _new_mount(
        "proc", {"hidepid": "invisible"}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    )


def _new_mount(kind: str, options: dict[str, str], attributes: int) -> int:
    context = invoke(SYS_FSOPEN, f"fsopen {kind}", kind.encode(), FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            what = f"fsconfig {kind} {key}={value}"
            invoke(SYS_FSCONFIG, what, context, FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        invoke(SYS_FSCONFIG, f"fsconfig {kind}", context, FSCONFIG_CMD_CREATE, None, None, 0)
        return invoke(SYS_FSMOUNT, f"fsmount {kind}", context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def clone_tree(path: str, *, folder_fd: int = AT_FDCWD, recursive: bool = True) -> int:
    """Make a detached bind of ``path``; the mounts below it come along when ``recursive``."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return invoke(SYS_OPEN_TREE, f"open_tree {path}", folder_fd, os.fsencode(path), flags)


def restrict(
    mount_fd: int, *, read_only: bool, no_device: bool = True, no_exec: bool = False, recursive: bool = True
) -> None:
    """Set a mount, and everything below it when ``recursive``, nosuid and as the arguments say."""
    bits = MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY if read_only else 0)
    bits |= (MOUNT_ATTR_NODEV if no_device else 0) | (MOUNT_ATTR_NOEXEC if no_exec else 0)
    attributes = struct.pack("<4Q", bits, 0, 0, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    invoke(SYS_MOUNT_SETATTR, "mount_setattr", mount_fd, b"", flags, attributes, len(attributes))


def attach(mount_fd: int, path: str, *, folder_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount (or move an attached one) to ``path``."""
    what = f"move_mount to {path}"
    invoke(SYS_MOVE_MOUNT, what, mount_fd, b"", folder_fd, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)


def detach(path: str) -> None:
    """Take the mount at ``path`` out of the name space; open descriptors keep it alive."""
    check(int(libc.umount2(ctypes.c_char_p(os.fsencode(path)), ctypes.c_int(MNT_DETACH))), f"umount {path}")


def make_private() -> None:
    """Stop mounts of this name space from spreading to any other."""
    flags = ctypes.c_ulong(MS_REC | MS_PRIVATE)
    check(int(libc.mount(None, ctypes.c_char_p(b"/"), None, flags, None)), "mount private")


def enter_root(root_fd: int) -> None:
    """Make ``root_fd``, a mount attached on top of ``/``, the root, and let go of the old root for good."""
    os.fchdir(root_fd)
    here = ctypes.c_char_p(b".")
    check(int(libc.pivot_root(here, here)), "pivot_root")
    # The old root now lies on top of the new one at "."; taking it off leaves no way back.
    detach(".")
    os.chdir("/")
