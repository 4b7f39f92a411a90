"""Files across the wall: laid down before a program runs, collected after it is dead.

Invariant: every path is walked by the kernel under openat2(2) with RESOLVE_BENEATH, NO_SYMLINKS and NO_XDEV,
from a folder descriptor of the sandbox's file system; whatever a program planted there (links, FIFOs) leads
nowhere. Collection is bounded in count, bytes, depth and time, and happens when no process is alive.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sandbox.kernel.syscalls import Resolve, openat2

__all__ = [
    "OUR_SHORTAGES",
    "CollectBounds",
    "CollectedFile",
    "CollectionError",
    "collect",
    "has_file_of_size",
    "lay_down",
]

WALK = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO that nobody writes must not wait. O_NOCTTY: no terminal may become ours.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
READ_BYTES = 1024 * 1024
OUR_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about a file: this process or this machine has run out of something."""


class CollectionError(Exception):
    """An output is over a bound; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectBounds:
    """What collection may take. Passing one ends it with `CollectionError`."""

    files: int = 1000
    total_bytes: int = 100 * 1024 * 1024
    depth: int = 32
    time_s: float = 10.0


@dataclass(frozen=True, slots=True)
class CollectedFile:
    """One regular file; ``path`` is relative to the folder and may hold any character but NUL."""

    path: str
    content: bytes


def lay_down(folder_fd: int, files: Iterable[tuple[str, bytes]], owner_uid: int | None) -> None:
    """Write files below a folder, making the folders between.

    Args:
        folder_fd: descriptor of the folder; no program is running in it yet.
        files: relative path and content.
        owner_uid: user and group number that the files get; None leaves them the caller's.

    Raises:
        OSError: a path is not below the folder, is a file and a folder at once, or the quota is used up.
    """
    for path, content in files:
        *parents, name = path.split("/")
        parent_fd = _make_folders(folder_fd, parents, owner_uid)
        try:
            _write(parent_fd, name, content, owner_uid)
        finally:
            os.close(parent_fd)


def _make_folders(folder_fd: int, names: list[str], owner_uid: int | None) -> int:
    current = os.dup(folder_fd)
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=current)
                if owner_uid is not None:
                    os.chown(name, owner_uid, owner_uid, dir_fd=current, follow_symlinks=False)
            below = openat2(current, name, FOLDER_FLAGS, WALK)
            os.close(current)
            current = below
    except BaseException:
        os.close(current)
        raise
    return current


def _write(parent_fd: int, name: str, content: bytes, owner_uid: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=parent_fd)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if owner_uid is not None:
            os.fchown(descriptor, owner_uid, owner_uid)
    finally:
        os.close(descriptor)


def collect(folder_fd: int, paths: Iterable[str], bounds: CollectBounds) -> list[CollectedFile]:
    """Read the regular files at ``paths``, or below them where they are folders.

    What is no regular file, or has a second name (a hard link), is left out, as is a path that is missing.

    Args:
        folder_fd: descriptor of the folder that the paths are relative to.
        paths: files or folders.
        bounds: where to stop.

    Raises:
        CollectionError: a bound was passed; nothing is returned then, rather than a part.
        OSError: this process is out of descriptors or memory.
    """
    deadline_s = time.monotonic() + bounds.time_s
    found: dict[str, CollectedFile] = {}
    total = 0
    for path in paths:
        for name, descriptor in _regular_files(folder_fd, path, bounds.depth, deadline_s, is_strict=True):
            try:
                if name in found:
                    continue
                if len(found) >= bounds.files:
                    raise CollectionError(f"more than {bounds.files} output files")
                content = _read(descriptor, bounds.total_bytes - total, bounds)
            finally:
                os.close(descriptor)
            total += len(content)
            found[name] = CollectedFile(name, content)
    return list(found.values())


def _regular_files(
    folder_fd: int, path: str, depth: int, deadline_s: float, *, is_strict: bool
) -> Iterator[tuple[str, int]]:
    """Yield path and descriptor of each regular file with one name, at or below ``path``.

    A folder below ``depth`` and the deadline raise `CollectionError` when ``is_strict``; otherwise the one is
    passed over, and the other ends the search.
    """
    # SECURITY: every entry is timed, for a program can leave thousands that are no files
    # (test_collection_of_entries_that_are_no_files_ends_in_time).
    if time.monotonic() > deadline_s:
        if is_strict:
            raise CollectionError("collecting the outputs took longer than allowed")
        return
    try:
        descriptor = openat2(folder_fd, path, READ_FLAGS, WALK)
    except OSError as exc:
        if exc.errno in OUR_SHORTAGES:
            raise
        return  # missing, a symbolic link, a socket, not permitted: nothing to collect
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
        yield path, descriptor
        return
    try:
        if not stat.S_ISDIR(state.st_mode):
            return
        if depth <= 0 and not is_strict:
            return
        if depth <= 0:
            raise CollectionError(f"output folder {path!r} is nested too deeply")
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries)
    finally:
        os.close(descriptor)
    for name in names:
        yield from _regular_files(folder_fd, f"{path}/{name}", depth - 1, deadline_s, is_strict=is_strict)


def _read(descriptor: int, left: int, bounds: CollectBounds) -> bytes:
    # A sparse file costs its writer nothing: its size is looked at before anything is read.
    if os.fstat(descriptor).st_size > left:
        raise CollectionError(f"outputs are larger than {bounds.total_bytes} bytes together")
    content = bytearray()
    while chunk := os.read(descriptor, READ_BYTES):
        content += chunk
    return bytes(content)


def has_file_of_size(folder_fd: int, size_bytes: int, *, bounds: CollectBounds) -> bool:
    """Say whether a regular file of at least that size lies below; False where ``bounds`` end the search."""
    deadline_s = time.monotonic() + bounds.time_s
    found = _regular_files(folder_fd, ".", bounds.depth, deadline_s, is_strict=False)
    for seen, (_, descriptor) in enumerate(found, start=1):
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        if size >= size_bytes:
            return True
        if seen >= bounds.files:
            return False
    return False
