"""Admission: how many executions run at once, who waits, and who is turned away.

Invariant: those who wait are admitted in the order in which they came; a place is given back however an
execution ends, and one who stops waiting leaves the queue at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandbox.errors import SystemFailureError

__all__ = ["Scheduler"]


class Scheduler:
    """Hands out places.

    Args:
        max_concurrent: executions at once.
        max_waiting: executions that may wait; one more is refused.

    Attributes:
        running: executions that hold a place now.
        waiting: executions that wait for one now.
    """

    def __init__(self, *, max_concurrent: int, max_waiting: int) -> None:
        if max_concurrent < 1 or max_waiting < 0:
            raise ValueError(
                f"expected at least one place and no negative queue, "
                f"received {max_concurrent} and {max_waiting}"
            )
        self.max_concurrent = max_concurrent
        self.max_waiting = max_waiting
        self.running = 0
        self.waiting = 0
        self._places = asyncio.Semaphore(max_concurrent)

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises:
            SystemFailureError: the queue is full; the request may be repeated later.
        """
        if self._places.locked() and self.waiting >= self.max_waiting:
            raise SystemFailureError(
                f"{self.running} executions run and {self.waiting} wait: the queue is full, try again later"
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()
