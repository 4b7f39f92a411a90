"""A clock that moves only when it is told to.

Invariant: no real time passes; whoever sleeps on it wakes in the order of the moments.
"""

import asyncio
import heapq
import itertools

__all__ = ["FakeClock"]


class FakeClock:
    """Seconds for tests: call it for the time, `sleep` on it, `advance` it."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = itertools.count()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved by so many seconds."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._serial), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move the clock, and let those run whose moment has come."""
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await asyncio.sleep(0)
        self._now = end
        await asyncio.sleep(0)
