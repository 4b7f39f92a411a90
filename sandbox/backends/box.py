"""The writable file system of a sandbox: a sized tmpfs that is in no mount table, and how full it is.

Invariant: what we put there ourselves is taken neither from the quota of bytes nor from that of inodes.
"""

import os

from sandbox.backends.backend import BoxUsage
from sandbox.backends.refusal import refusal
from sandbox.inside.root import BOX_FOLDERS
from sandbox.kernel.mounts import new_tmpfs
from sandbox.request import Limits

__all__ = ["BOX_ROOT_INODES", "box_usage", "make_box"]

BOX_ROOT_INODES = 1 + len(BOX_FOLDERS)
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_box(limits: Limits, uid: int) -> int:
    """Make the tmpfs with its folders, which belong to ``uid``; returns its descriptor.

    Raises:
        SandboxUnavailableError: the kernel refuses.
        SystemFailureError: this machine is short of something.
    """
    files_fd = -1
    try:
        files_fd = new_tmpfs(size_bytes=limits.disk_bytes, inodes=limits.inodes + BOX_ROOT_INODES, mode=0o711)
        for name in BOX_FOLDERS:
            os.mkdir(name, 0o700, dir_fd=files_fd)
            os.chown(name, uid, uid, dir_fd=files_fd, follow_symlinks=False)
            folder = os.open(name, FOLDER_FLAGS, dir_fd=files_fd)
            os.fchmod(folder, 0o755 if name == "work" else 0o1777)
            os.close(folder)
    except OSError as exc:
        if files_fd >= 0:
            os.close(files_fd)
        fix = "the service needs CAP_SYS_ADMIN and Linux 5.12"
        raise refusal(exc.errno, f"a tmpfs cannot be made: {exc}", fix) from exc
    return files_fd


def box_usage(files_fd: int) -> BoxUsage:
    """Read how full the tmpfs is."""
    space = os.fstatvfs(files_fd)
    return BoxUsage(
        disk_bytes=(space.f_blocks - space.f_bfree) * space.f_frsize,
        inodes=max(0, space.f_files - space.f_ffree - BOX_ROOT_INODES),
        is_full=space.f_bfree == 0,
        is_out_of_inodes=space.f_ffree == 0,
    )
