"""Captures a stream of the program: keeps the beginning, counts and digests everything.

Invariant: memory is bounded by what is kept; a full pipe slows a program down, printing never kills it.
"""

import hashlib
import os
import time

__all__ = ["Capture"]

CHUNK_BYTES = 256 * 1024


class Capture:
    """Reads one end of a pipe without blocking.

    Attributes:
        data: the first ``keep_bytes`` bytes.
        size_bytes: how many were printed so far.
        is_open: False after end of file.
        cost_s: CPU time that reading and digesting has cost this process.
    """

    def __init__(self, descriptor: int, *, keep_bytes: int) -> None:
        self.descriptor = descriptor
        self.data = bytearray()
        self.size_bytes = 0
        self.is_open = True
        self.cost_s = 0.0
        self._keep_bytes = keep_bytes
        self._digest = hashlib.sha256()
        os.set_blocking(descriptor, False)

    def read_some(self) -> bool:
        """Read at most one chunk; True when there may be more at once."""
        if not self.is_open:
            return False
        began_s = time.thread_time()
        try:
            return self._read_some()
        finally:
            self.cost_s += time.thread_time() - began_s

    def _read_some(self) -> bool:
        try:
            chunk = os.read(self.descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self.close()
            return False
        self.size_bytes += len(chunk)
        self._digest.update(chunk)
        self.data += chunk[: max(0, self._keep_bytes - len(self.data))]
        return True

    def drain(self) -> None:
        """Read what the pipe still holds, once every writer is dead. Does not wait for end of file."""
        while self.read_some():
            pass
        self.close()

    def close(self) -> None:
        """Close the descriptor. Safe to call twice."""
        if self.is_open:
            os.close(self.descriptor)
            self.is_open = False

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of everything that was printed."""
        return self._digest.hexdigest()

    @property
    def is_cut(self) -> bool:
        """True when more was printed than was kept."""
        return self.size_bytes > len(self.data)
