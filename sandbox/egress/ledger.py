"""What one installation has fetched, what failed on the way, and what it may still take.

Invariant: bytes are counted before they are passed on; a bound that is passed ends the answer at once.
"""

import asyncio
from dataclasses import dataclass, field

__all__ = ["Failure", "Fetched", "Ledger", "MirrorBounds", "RefusedError"]

MIB = 1024 * 1024
BURST_S = 0.5


class RefusedError(Exception):
    """A request is not served. It never leaves this package: the program inside gets an HTTP status."""

    def __init__(self, status: int, why: str, *, registry: str = "", is_unreachable: bool = False) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.registry = registry
        """Set where the failure is the registry's, and not the request's."""
        self.is_unreachable = is_unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorBounds:
    """What one session may take."""

    file_bytes: int = 1024 * MIB
    session_bytes: int = 4096 * MIB
    requests: int = 20_000
    fetch_s: float = 300.0
    """For one answer from its beginning to its end."""
    bytes_per_s: int = 64 * MIB
    """Over the whole session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One file that was passed inside completely, as the registry sent it."""

    registry: str
    path: str
    """As asked for inside: ``/<registry>/...``."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A registry that did not do its part; ``reason`` names it as it is configured, never by its address."""

    registry: str
    reason: str
    is_unreachable: bool = False


@dataclass(slots=True)
class Ledger:
    """The books of one session."""

    bounds: MirrorBounds
    fetched: list[Fetched] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    requests: int = 0
    total_bytes: int = 0
    _free_at_s: float = 0.0

    def count_request(self) -> None:
        """Take note of a request.

        Raises:
            RefusedError: it is one too many.
        """
        self.requests += 1
        if self.requests > self.bounds.requests:
            raise RefusedError(429, f"at most {self.bounds.requests} requests may be made")

    def expect(self, registry: str, size_bytes: int, *, new_bytes: int) -> None:
        """Refuse a file of ``size_bytes``, of which ``new_bytes`` are still to come, where it is too large.

        Raises:
            RefusedError: it would pass a bound.
        """
        if size_bytes > self.bounds.file_bytes:
            raise RefusedError(
                502,
                f"registry {registry}: a file is larger than {self.bounds.file_bytes} bytes",
                registry=registry,
            )
        if self.total_bytes + new_bytes > self.bounds.session_bytes:
            raise RefusedError(
                502,
                f"registry {registry}: the files together are larger than {self.bounds.session_bytes} bytes",
                registry=registry,
            )

    async def take(self, registry: str, so_far_bytes: int, new_bytes: int) -> int:
        """Count a piece of a file of which ``so_far_bytes`` have passed; wait where pieces come too fast.

        Returns:
            The size with this piece.

        Raises:
            RefusedError: it passes a bound.
        """
        size_bytes = so_far_bytes + new_bytes
        self.expect(registry, size_bytes, new_bytes=new_bytes)
        self.total_bytes += new_bytes
        now_s = asyncio.get_running_loop().time()
        self._free_at_s = max(now_s, self._free_at_s) + new_bytes / self.bounds.bytes_per_s
        if (ahead_s := self._free_at_s - now_s - BURST_S) > 0:
            await asyncio.sleep(ahead_s)
        return size_bytes
