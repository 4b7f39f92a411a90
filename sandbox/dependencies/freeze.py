"""Copies what an installer left out of its sandbox into a folder that becomes a layer.

Invariant: the copy holds regular files, folders, and links that lead to something below its root, and nothing
else; nothing in it is writable, nor set-uid, nor has a second name. Every path is walked under openat2(2), no
process of the sandbox lives any more, and the walk is bounded in count, bytes, depth and time.
"""

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.kernel.files import FOLDER_FLAGS, READ_FLAGS, WALK
from sandbox.kernel.syscalls import openat2

__all__ = ["FreezeBounds", "FreezeError", "freeze"]

CHUNK_BYTES = 8 * 1024 * 1024
MAX_LINK_BYTES = 1024


class FreezeError(Exception):
    """What was installed cannot be a layer; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeBounds:
    """What a layer may take. Passing one ends the copy with `FreezeError`."""

    entries: int = 200_000
    total_bytes: int = 2 * 1024 * 1024 * 1024
    depth: int = 64
    time_s: float = 120.0


def freeze(source_fd: int, target: Path, bounds: FreezeBounds, should_stop: Callable[[], bool]) -> None:
    """Copy everything below a folder.

    Args:
        source_fd: descriptor of the folder in the sandbox's file system.
        target: is made.
        bounds: where to stop.
        should_stop: asked often; True ends the copy with `FreezeError`.

    Raises:
        FreezeError: a bound was passed, or an entry is none that a layer may have.
        OSError: the target cannot be written.
    """
    _Copy(bounds, should_stop).folder(source_fd, target, "")


class _Copy:
    """One walk, and what is left of its bounds."""

    def __init__(self, bounds: FreezeBounds, should_stop: Callable[[], bool]) -> None:
        self._bounds = bounds
        self._should_stop = should_stop
        self._deadline_s = time.monotonic() + bounds.time_s
        self._entries = bounds.entries
        self._bytes = bounds.total_bytes

    def folder(self, source_fd: int, target: Path, path: str) -> None:
        """Copy a folder; ``path`` is its place below the root."""
        if path.count("/") >= self._bounds.depth:
            raise FreezeError(f"folders are nested more than {self._bounds.depth} deep")
        target.mkdir(mode=0o700)
        with os.scandir(source_fd) as entries:
            names = [entry.name for entry in self._counted(entries)]
        for name in sorted(names):
            self._tick()
            self._entry(source_fd, name, target / name, f"{path}/{name}")
        target.chmod(0o555)

    def _counted(self, entries: "os._ScandirIterator[str]") -> "list[os.DirEntry[str]]":
        """Count entries while they are listed, so that a folder of millions is not listed first."""
        found = []
        for entry in entries:
            self._entries -= 1
            if self._entries < 0:
                raise FreezeError(f"more than {self._bounds.entries} files and folders")
            found.append(entry)
        return found

    def _entry(self, folder_fd: int, name: str, target: Path, path: str) -> None:
        mode = os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            target.symlink_to(self._link(folder_fd, name, path))
            return
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            # SECURITY: a device or FIFO would be opened by whoever reads the layer
            # (test_freezing_refuses_what_is_neither_file_nor_folder).
            raise FreezeError(f"{path!r} is neither file, folder nor link")
        is_folder = stat.S_ISDIR(mode)
        descriptor = openat2(folder_fd, name, FOLDER_FLAGS if is_folder else READ_FLAGS, WALK)
        try:
            if is_folder:
                self.folder(descriptor, target, path)
            else:
                self._file(descriptor, target)
        finally:
            os.close(descriptor)

    def _link(self, folder_fd: int, name: str, path: str) -> str:
        """Return where a link leads, when that is below the root whatever the links on the way are."""
        leads_to = os.readlink(name, dir_fd=folder_fd)
        parts = leads_to.split("/")
        up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
        # SECURITY: a ".." behind a name may leave the root through another link; canonical links cannot
        # (test_freezing_refuses_links_that_leave).
        is_plain = all(part not in {"", ".", ".."} for part in parts[up:])
        if not is_plain or up > path.count("/") - 1 or len(leads_to) > MAX_LINK_BYTES:
            raise FreezeError(f"the link {path!r} leads out of what was installed")
        return leads_to

    def _file(self, descriptor: int, target: Path) -> None:
        state = os.fstat(descriptor)
        # A sparse file costs its writer nothing: its size is looked at before anything is copied.
        self._bytes -= state.st_size
        if self._bytes < 0:
            raise FreezeError(f"more than {self._bounds.total_bytes} bytes")
        # SECURITY: set-uid bits do not come along (test_frozen_files_have_no_special_bits).
        mode = 0o555 if state.st_mode & 0o111 else 0o444
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(target, flags, 0o600)
        try:
            done = 0
            while done < state.st_size:
                self._tick()
                count = os.sendfile(copy, descriptor, done, min(CHUNK_BYTES, state.st_size - done))
                if not count:
                    break
                done += count
            os.fchmod(copy, mode)
        finally:
            os.close(copy)

    def _tick(self) -> None:
        if self._should_stop():
            raise FreezeError("stopped")
        if time.monotonic() > self._deadline_s:
            raise FreezeError(f"copying took more than {self._bounds.time_s:g} s")
