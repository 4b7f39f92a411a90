"""Whole outputs of executions on disk, named by their SHA-256, within a bound.

What was too long for the chain is kept here, so that anybody who holds the digest from the chain can fetch
the bytes and check them.

Invariant: `OutputStore.get` returns bytes whose digest is the name that was asked for, or None; the files
together never exceed the cap. A store that cannot keep a file says so in the log and never raises: the
answer on chain does not depend on it.
"""

import hashlib
import os
import re
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

import structlog

__all__ = ["OutputStore"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_log = structlog.get_logger()


class OutputStore:
    """A bounded store of files by digest; the least recently used ones go first. Safe to use from threads.

    Args:
        folder: where the files lie; made when missing.
        max_bytes: most bytes of all files together.
        item_max_bytes: most bytes of one file; larger ones are not kept.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, *, max_bytes: int, item_max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._item_max_bytes = min(item_max_bytes, max_bytes)
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._load()

    @property
    def total_bytes(self) -> int:
        """Bytes of all files that are kept."""
        return self._total

    def put(self, data: bytes) -> str:
        """Keep some bytes and return their SHA-256 as 64 hexadecimal digits.

        Never raises for a full or failing disk, nor for too large a file: that is logged, and the digest,
        which is true all the same, is returned.
        """
        digest = hashlib.sha256(data).hexdigest()
        if len(data) > self._item_max_bytes:
            _not_stored(
                digest, data, "too large", "raise BLUEPRINT_OUTPUTS_ITEM_MAX_BYTES to keep such outputs"
            )
            return digest
        with self._lock:
            if digest in self._sizes:
                self._sizes.move_to_end(digest)
                return digest
            try:
                self._make_room(len(data))
                self._write(digest, data)
            except OSError as error:
                fix = f"free space below {self._folder}, or lower BLUEPRINT_OUTPUTS_MAX_BYTES"
                _not_stored(digest, data, error.strerror or str(error), fix)
                return digest
            self._sizes[digest] = len(data)
            self._total += len(data)
        return digest

    def get(self, digest: str) -> bytes | None:
        """Return the bytes with this digest (64 lower-case hexadecimal digits), or None.

        A file whose bytes do not have the digest (a crash, a bad disk) is removed and reported as absent.
        """
        if not _DIGEST.fullmatch(digest):
            return None
        with self._lock:
            if digest not in self._sizes:
                return None
            self._sizes.move_to_end(digest)
        path = self._path(digest)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError as error:
            _log.warning("output_unreadable", digest=digest, reason=error.strerror or str(error))
            data = None
        if data is not None and hashlib.sha256(data).hexdigest() == digest:
            return data
        self._forget(digest)
        return None

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _load(self) -> None:
        """Index what an earlier run left, oldest use first; drop half-written files and what is too much."""
        found: list[tuple[float, str, int]] = []
        for path in self._folder.glob("*/*"):
            if _DIGEST.fullmatch(path.name) and path.parent.name == path.name[:2]:
                status = path.stat()
                found.append((status.st_mtime, path.name, status.st_size))
            elif path.name.startswith(".new-"):
                path.unlink(missing_ok=True)
        for _, digest, size in sorted(found):
            self._sizes[digest] = size
            self._total += size
        self._make_room(0)

    def _make_room(self, size: int) -> None:
        while self._sizes and self._total + size > self._max_bytes:
            digest, freed = self._sizes.popitem(last=False)
            self._path(digest).unlink(missing_ok=True)
            self._total -= freed
            _log.debug("output_evicted", digest=digest, size_bytes=freed)

    def _write(self, digest: str, data: bytes) -> None:
        path = self._path(digest)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _forget(self, digest: str) -> None:
        with self._lock:
            size = self._sizes.pop(digest, None)
            if size is not None:
                self._total -= size
                self._path(digest).unlink(missing_ok=True)
                _log.warning("output_dropped", digest=digest, reason="its bytes do not have its digest")


def _not_stored(digest: str, data: bytes, reason: str, fix: str) -> None:
    _log.warning("output_not_stored", digest=digest, size_bytes=len(data), reason=reason, fix=fix)
