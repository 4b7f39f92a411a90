"""Work that several ask for at once is done once.

Invariant: whoever asks while the work is being done gets its outcome, and whoever asked before it failed gets
the failure, however late it is looked at; whoever asks later has it done anew. Work is done by one who asked
for it: when that one is cancelled, the next begins again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Flights"]

Outcome = TypeVar("Outcome")
FAILURES = 256
"""How many are remembered, for those who asked before and have not looked yet."""


@dataclass(slots=True)
class _Flight(Generic[Outcome]):
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at_s: float = 0.0
    outcome: Outcome | None = None
    error: Exception | None = None

    def result(self) -> Outcome | None:
        """Return the outcome, None when the work was broken off."""
        if self.error is not None:
            raise self.error
        return self.outcome


class Flights(Generic[Outcome]):
    """What is being done now, by key.

    Args:
        has_failed: tells an outcome that is a failure.
        now_s: a clock that never goes back.
    """

    def __init__(
        self, has_failed: Callable[[Outcome], bool], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._has_failed = has_failed
        self._now_s = now_s
        self._flights: dict[str, _Flight[Outcome]] = {}
        self._failures: OrderedDict[str, _Flight[Outcome]] = OrderedDict()

    async def join(self, key: str, asked_at_s: float, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Return the outcome of ``work``, which is called unless another does the same.

        Args:
            key: says what is the same.
            asked_at_s: when the caller's own caller asked, by the same clock.
            work: what is to be done.

        Raises:
            Exception: what ``work`` raised, whoever did it.
        """
        while (flight := self._flights.get(key)) is not None:
            await flight.has_ended.wait()
            if (outcome := flight.result()) is not None:
                return outcome
        failure = self._failures.get(key)
        if failure is not None and failure.ended_at_s > asked_at_s:
            outcome = failure.result()
            assert outcome is not None
            return outcome
        return await self._do(key, work)

    async def _do(self, key: str, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        flight = self._flights[key] = _Flight[Outcome]()
        self._failures.pop(key, None)
        try:
            flight.outcome = outcome = await work()
        except Exception as exc:
            flight.error = exc
            raise
        finally:
            del self._flights[key]
            flight.ended_at_s = self._now_s()
            if flight.error is not None or (flight.outcome is not None and self._has_failed(flight.outcome)):
                self._failures[key] = flight
                if len(self._failures) > FAILURES:
                    self._failures.popitem(last=False)
            flight.has_ended.set()
        return outcome
