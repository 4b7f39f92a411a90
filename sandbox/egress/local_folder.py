"""A registry that is a folder of this host.

Invariant: every file is opened by the kernel under openat2(2) with RESOLVE_BENEATH: no path, link or race
leads out of the folder; only regular files are read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from sandbox.egress.ledger import RefusedError
from sandbox.kernel.syscalls import Resolve, openat2

__all__ = ["content_type_of", "open_file"]

INDEX_NAMES = ("index.html", "index.json")
TYPES = {".html": "text/html", ".json": "application/json"}
WALK = Resolve.BENEATH | Resolve.NO_MAGICLINKS
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
ABSENT = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EXDEV,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EINVAL,
)


@contextmanager
def open_file(registry: str, root: str, path: str) -> Iterator[tuple[int, str]]:
    """Open a file below a ``file://`` root; a folder stands for its index.

    Args:
        registry: its name, for messages.
        root: the address of the folder.
        path: a path that `clean_path` has seen.

    Yields:
        A descriptor of a regular file, and its name.

    Raises:
        RefusedError: there is no such file, or no such folder.
    """
    try:
        root_fd = os.open(unquote(urlsplit(root).path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise RefusedError(
            502,
            f"registry {registry} cannot be reached (its folder cannot be opened)",
            registry=registry,
            is_unreachable=True,
        ) from exc
    try:
        below = unquote(path).strip("/") or "."
        for name in (below, *(f"{below}/{index}" for index in INDEX_NAMES)):
            descriptor = _open_beneath(root_fd, name)
            if descriptor is not None:
                break
        else:
            raise RefusedError(404, "there is no such file")
    finally:
        os.close(root_fd)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)


def content_type_of(name: str) -> str:
    """Return the media type of a file by the end of its name."""
    return TYPES.get(os.path.splitext(name)[1].lower(), "application/octet-stream")  # noqa: PTH122 - no path


def _open_beneath(root_fd: int, path: str) -> int | None:
    """Return a descriptor of a regular file, or None."""
    try:
        descriptor = openat2(root_fd, path, READ_FLAGS, WALK)
    except OSError as exc:
        if exc.errno in ABSENT:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
