"""Takes out of a tree what no program needs, and what must not be shared: logs, identities, set-uid bits.

Invariant: nothing outside the tree is touched, whatever links the tree holds.
"""

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MOUNT_POINTS", "remove_tree", "strip_special_bits", "trim"]

MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "work")
"""Folders that every tree has, empty, for a back end to mount on."""


def trim(root: Path, patterns: Iterable[str]) -> None:
    """Remove every file and folder that matches one of the patterns, then make the mount points.

    Args:
        root: the tree.
        patterns: globs relative to the tree.
    """
    real_root = root.resolve()
    for pattern in patterns:
        # The list is made first: the walk must not meet what it removes.
        for path in list(root.glob(pattern)):
            # SECURITY: a link inside the tree may lead out of it (test_trim_stays_inside_the_tree).
            if path.parent.resolve().is_relative_to(real_root) and os.path.lexists(path):
                remove_tree(path)
    for name in MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def strip_special_bits(root: Path) -> int:
    """Clear set-uid, set-gid and other-writable bits of every file, and return how many had one."""
    cleared = 0
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118 - 60,000 files: a Path each is seconds
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH):
                os.chmod(path, stat.S_IMODE(mode) & 0o0775)  # noqa: PTH101 - as above
                cleared += 1
    return cleared


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder with everything in it, folders without write permission too."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        mode = stat.S_IMODE(os.lstat(folder).st_mode)
        if mode & 0o700 != 0o700:  # noqa: PLR2004 - read, write and search for the owner
            os.chmod(folder, mode | 0o700)  # noqa: PTH101 - os.walk gives strings
    shutil.rmtree(path)
