"""Lays out what a gVisor sandbox shows, in a mount name space that the service then keeps by a descriptor.

A process of its own runs this and ends: it stays only until the service has opened what it made. Arguments:
descriptors of the layout (JSON) and of the writable tmpfs.

Invariant: everything is made by root of the initial user name space, read-only but for the writable tmpfs,
and below `PLACE` in this name space alone: the host sees none of it, and nothing is left when the last
descriptor of the name space closes.
"""

import json
import os
import sys

from sandbox.inside.orders import Layout, unpack_layout
from sandbox.inside.root import BOX_FOLDERS, lay_out
from sandbox.kernel.mounts import attach, clone_tree, make_private, new_tmpfs, restrict
from sandbox.kernel.syscalls import CLONE_NEWNS, unshare

__all__ = ["BOX", "PLACE", "ROOT", "main"]

PLACE = "/dev/shm"  # noqa: S108 - covered in a name space of our own
"""A folder that every Linux has and from which no sandbox shows anything: covered, not written to."""
ROOT = "rootfs"
BOX = "box"
PLACE_BYTES = 32 * 1024 * 1024
PLACE_INODES = 1024


def main() -> None:
    """Lay out, say ``ready``, and wait for the end of standard input."""
    layout_fd, box_fd = (int(argument) for argument in sys.argv[1:3])
    with os.fdopen(layout_fd) as file:
        layout = unpack_layout(json.load(file))
    try:
        _build(layout, box_fd)
    except OSError as exc:
        sys.exit(f"the root could not be built: {exc}")
    os.write(1, b"ready\n")
    os.read(0, 1)


def _build(layout: Layout, box_fd: int) -> None:
    unshare(CLONE_NEWNS)
    make_private()
    trees = [(clone_tree(source), target) for source, target in layout.binds]
    place = new_tmpfs(size_bytes=PLACE_BYTES, inodes=PLACE_INODES)
    attach(place, PLACE)
    os.fchdir(place)
    os.close(place)
    os.mkdir(BOX)
    attach(box_fd, BOX)
    os.mkdir(ROOT)
    os.chdir(ROOT)
    lay_out(layout, trees)
    for path in ("proc", "sys", "dev", *BOX_FOLDERS.values()):
        os.makedirs(path, exist_ok=True)
    os.chdir("..")
    root = clone_tree(ROOT)
    restrict(root, read_only=True, recursive=False)
    attach(root, ROOT)
    os.close(root)
