"""The root file system of a sandbox: built by the launcher in its own mount name space, then entered.

Invariant: after `build_root` nothing of the host's file system can be reached but what the layout names, and
all of it is read-only except ``/work``, ``/tmp`` and ``/dev/shm``, which are folders of the sized tmpfs.
Every mount is made by root of the initial user name space, so a program in its own cannot undo one.
"""

import os
import stat
from collections.abc import Sequence

from sandbox.inside.orders import Layout
from sandbox.kernel.mounts import (
    attach,
    clone_tree,
    detach,
    enter_root,
    make_private,
    new_proc,
    new_tmpfs,
    restrict,
)
from sandbox.kernel.syscalls import CLONE_NEWNS, unshare

__all__ = ["BOX_FOLDERS", "build_root", "lay_out", "mount_proc", "write_text"]

BOX_FOLDERS = {"work": "work", "tmp": "tmp", "shm": "dev/shm"}
"""Folder of the writable file system to where it shows inside."""

DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
ROOT_BYTES = 1024 * 1024
ROOT_INODES = 512
DEVICE_INODES = 32

# What proc says about the machine instead of the sandbox, or lets root do to it. A sandbox is not root and
# most of it is guarded by file modes: this is the second lock.
MASKED_FILES = (
    "cmdline", "config.gz", "consoles", "interrupts", "iomem", "ioports", "kallsyms", "kcore", "key-users",
    "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "modules", "partitions",
    "sched_debug", "slabinfo", "swaps", "sysrq-trigger", "timer_list", "vmallocinfo",
)  # fmt: skip
MASKED_FOLDERS = ("acpi", "asound", "bus", "driver", "dynamic_debug", "fs", "irq", "pressure", "scsi", "tty")


def build_root(layout: Layout, box_fd: int) -> None:
    """Leave the host's mount name space, build the root, enter it.

    Args:
        layout: what shows inside.
        box_fd: the detached writable tmpfs; the service's own descriptor of it stays usable.

    Raises:
        OSError: the kernel refuses a mount; the message names it.
    """
    unshare(CLONE_NEWNS)
    make_private()
    root_fd = new_tmpfs(size_bytes=ROOT_BYTES, inodes=ROOT_INODES)
    trees = [(clone_tree(source), target) for source, target in layout.binds]
    devices = [(clone_tree(f"/dev/{name}", recursive=False), f"dev/{name}") for name in DEVICES]

    # Attached on top of "/": absolute paths still mean the host's until `enter_root`.
    attach(root_fd, "/")
    os.fchdir(root_fd)
    _attach_devices(devices)
    lay_out(layout, trees)
    os.mkdir("proc")
    _attach_box(box_fd)
    restrict(root_fd, read_only=True, recursive=False)
    enter_root(root_fd)
    os.close(root_fd)


def lay_out(layout: Layout, trees: Sequence[tuple[int, str]]) -> None:
    """Attach the parts of the tree below the working directory, read-only, and make links and small files.

    Args:
        layout: names the links and the files.
        trees: the layout's binds as detached mounts, with their paths inside.
    """
    for descriptor, target in trees:
        restrict(descriptor, read_only=True)
        _attach_at(descriptor, target)
    for target, path in layout.links:
        _make_parents(path)
        os.symlink(target, path)
    for path, text in layout.texts:
        if os.path.lexists(path):
            _cover(path, text)
        else:
            _make_parents(path)
            _write(path, text)


def _attach_devices(devices: Sequence[tuple[int, str]]) -> None:
    folder = new_tmpfs(size_bytes=ROOT_BYTES, inodes=DEVICE_INODES)
    _attach_at(folder, "dev", keep=True)
    os.mkdir("dev/shm")
    for descriptor, path in devices:
        _write(path, "")
        restrict(descriptor, read_only=False, no_device=False, no_exec=True)
        _attach_at(descriptor, path)
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"dev/{name}")
    # A device node on a read-only mount can still be written to: nothing is stored there.
    restrict(folder, read_only=True, no_device=False, recursive=False)
    os.close(folder)


def _attach_box(box_fd: int) -> None:
    """Show the folders of the writable file system, each at its place, and hide their common root."""
    os.mkdir("work")
    attach(box_fd, "work")
    folders = [(clone_tree(name, folder_fd=box_fd), path) for name, path in BOX_FOLDERS.items()]
    detach("work")
    for descriptor, path in folders:
        _attach_at(descriptor, path)


def _attach_at(descriptor: int, path: str, *, keep: bool = False) -> None:
    """Attach a mount at a path below the working directory, making the folder or file that it needs."""
    if not os.path.lexists(path):
        _make_parents(path)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.mkdir(path)
        else:
            _write(path, "")
    attach(descriptor, path)
    if not keep:
        os.close(descriptor)


def _cover(path: str, text: str) -> None:
    """Lay a small file of the sandbox's own over a file of the tree."""
    _write("cover", text)
    descriptor = clone_tree("cover", recursive=False)
    restrict(descriptor, read_only=True)
    attach(descriptor, path)
    os.close(descriptor)
    os.unlink("cover")


def _make_parents(path: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)


def write_text(path: str, text: str, *, flags: int = 0) -> None:
    """Write a small file that is there, or that ``flags`` make."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _write(path: str, text: str) -> None:
    write_text(path, text, flags=os.O_CREAT | os.O_EXCL)


def mount_proc() -> None:
    """Mount proc of the caller's process name space at ``/proc`` and mask it; called by init."""
    attach(new_proc(), "/proc")
    settings = clone_tree("/proc/sys")
    restrict(settings, read_only=True, no_exec=True)
    attach(settings, "/proc/sys")
    os.close(settings)
    # The launcher's command line names folders of the machine; init inherits it.
    for name in ("1/cmdline", *MASKED_FILES):
        if os.path.exists(f"/proc/{name}"):
            null = clone_tree("/dev/null", recursive=False)
            attach(null, f"/proc/{name}")
            os.close(null)
    for name in MASKED_FOLDERS:
        if os.path.isdir(f"/proc/{name}"):
            empty = new_tmpfs(size_bytes=4096, inodes=1, mode=0o555)
            restrict(empty, read_only=True)
            attach(empty, f"/proc/{name}")
            os.close(empty)
