"""Admission: what the machine can hold runs, a bounded number waits, and the rest is told when to come back.

Invariant: what is admitted together never reserves more than the capacity; a place is given back however an
execution ends; who stops waiting leaves the queue at once. Whose turn it is, `Waitlist` says.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sandbox.capacity import Capacity
from sandbox.errors import BusyError, RequestError
from sandbox.request import MIB, Priority
from sandbox.waitlist import Waitlist

__all__ = ["Claim", "Load", "Scheduler"]

FIRST_ESTIMATE_S = 1.0
SHORTEST_RETRY_S = 0.1
LONGEST_RETRY_S = 300.0
RETRY_ELSEWHERE_S = 1.0
"""After a drain: the next service, or another one, may have room by then."""
WEIGHT_OF_LAST = 0.1
ROUNDING = 1e-9
"""Sums of CPU shares are compared with this much slack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one execution reserves for as long as it runs."""

    memory_bytes: int
    cpus: float = 1.0
    caller: str = ""
    """Whose turn it uses; executions without a caller share the turns of one."""
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a scheduler holds at one moment."""

    running: int
    waiting: int
    reserved: Capacity
    capacity: Capacity


class _Ticket:
    """One claim that waits; its future is done when it is admitted or refused."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Scheduler:
    """Hands out places.

    The one whose turn it is holds up the others until there is room for it: were they let past, a stream of
    small claims would keep a large one waiting for ever.

    Args:
        capacity: what all executions together may reserve.
        max_concurrent: executions at once, however little they reserve; None for no such bound.
        max_waiting: executions that may wait. When so many do, a newcomer takes the place of the newest of
            the caller with the most, if that one has more than the newcomer's; else it is refused.
        clock: seconds that never go back.

    Attributes:
        running: executions that hold a place now.
    """

    def __init__(
        self,
        capacity: Capacity,
        *,
        max_concurrent: int | None = None,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if (max_concurrent is not None and max_concurrent < 1) or max_waiting < 0:
            raise ValueError(
                f"expected at least one place and no negative queue, "
                f"received {max_concurrent} and {max_waiting}"
            )
        self.capacity = capacity
        self.max_concurrent = max_concurrent
        self.max_waiting = max_waiting
        self.running = 0
        self._memory_bytes = 0
        self._cpus = 0.0
        self._waitlist: Waitlist[_Ticket] = Waitlist()
        self._clock = clock
        self._usual_s = FIRST_ESTIMATE_S
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Executions that wait for a place now."""
        return len(self._waitlist)

    @property
    def load(self) -> Load:
        """What runs, waits and is reserved now."""
        reserved = Capacity(memory_bytes=self._memory_bytes, cpus=self._cpus)
        return Load(running=self.running, waiting=self.waiting, reserved=reserved, capacity=self.capacity)

    @asynccontextmanager
    async def admit(self, claim: Claim) -> AsyncIterator[None]:
        """Wait until there is room for a claim, and hold it.

        Raises:
            RequestError: it is larger than the whole capacity.
            BusyError: too many wait, or the service is being stopped; the request may be repeated later.
        """
        self._check(claim)
        if not self._waitlist and self._has_room(claim):
            self._take(claim)
        else:
            await self._wait(claim)
        began_s = self._clock()
        try:
            yield
        finally:
            self._usual_s += WEIGHT_OF_LAST * (self._clock() - began_s - self._usual_s)
            self._give_back(claim)

    async def drain(self, grace_s: float) -> int:
        """Admit nobody any more, refuse those who wait, and let those who run end within ``grace_s``.

        Returns:
            How many still run.
        """
        self._is_draining = True
        for ticket in self._waitlist:
            self._refuse(
                ticket, "the service is being stopped: this execution has not started", RETRY_ELSEWHERE_S
            )
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self.running

    def retry_after_s(self) -> float:
        """Estimate when half of those who wait will have been started, from how long executions took lately.

        By then there is room in the queue again, and it has not run empty.
        """
        estimate_s = self._usual_s * max(1.0, self.waiting / 2) / max(1, self.running)
        return min(max(estimate_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    def _check(self, claim: Claim) -> None:
        """Refuse what can never be admitted."""
        most = self.capacity
        if claim.memory_bytes > most.memory_bytes or claim.cpus > most.cpus + ROUNDING:
            raise RequestError(
                f"limits: this execution reserves {claim.memory_bytes / MIB:.0f} MiB of memory and "
                f"{claim.cpus:g} CPUs, and all that this machine can give is "
                f"{most.memory_bytes / MIB:.0f} MiB and {most.cpus:g}; ask for less memory"
            )

    async def _wait(self, claim: Claim) -> None:
        if self._is_draining:
            raise BusyError(
                "the service is being stopped: nothing is admitted any more",
                retry_after_s=RETRY_ELSEWHERE_S,
            )
        if self.waiting >= self.max_waiting:
            self._make_room_in_queue(claim)
        ticket = _Ticket(claim)
        self._waitlist.add(ticket, claim.priority, claim.caller)
        self._admit_next()  # it may go before one for which there is no room
        try:
            await ticket.future
        except asyncio.CancelledError:
            if ticket.future.cancelled():
                self._waitlist.discard(ticket)
                self._admit_next()  # it may have held up those behind
            elif ticket.future.exception() is None:  # admitted, and cancelled before it could know
                self._give_back(claim)
            raise

    def _make_room_in_queue(self, claim: Claim) -> None:
        given_up = self._waitlist.yielding_to(claim.priority, claim.caller)
        busy = f"{self.running} executions run and {self.waiting} wait: the queue is full"
        if given_up is None:
            raise BusyError(busy, retry_after_s=self.retry_after_s())
        self._refuse(given_up, f"{busy}, and its place went to a caller who has fewer", self.retry_after_s())

    def _refuse(self, ticket: _Ticket, why: str, retry_after_s: float) -> None:
        self._waitlist.discard(ticket)
        if not ticket.future.done():
            ticket.future.set_exception(BusyError(why, retry_after_s=retry_after_s))

    def _has_room(self, claim: Claim) -> bool:
        is_below_most = self.max_concurrent is None or self.running < self.max_concurrent
        return (
            is_below_most
            and not self._is_draining
            and self._memory_bytes + claim.memory_bytes <= self.capacity.memory_bytes
            and self._cpus + claim.cpus <= self.capacity.cpus + ROUNDING
        )

    def _take(self, claim: Claim) -> None:
        self.running += 1
        self._memory_bytes += claim.memory_bytes
        self._cpus += claim.cpus
        self._idle.clear()

    def _give_back(self, claim: Claim) -> None:
        self.running -= 1
        self._memory_bytes -= claim.memory_bytes
        self._cpus -= claim.cpus
        if not self.running:
            self._cpus = 0.0  # what rounding has left
            self._idle.set()
        self._admit_next()

    def _admit_next(self) -> None:
        """Admit in turn, as long as there is room."""
        while (ticket := self._waitlist.first()) is not None:
            if ticket.future.cancelled():  # its task has not run since
                self._waitlist.discard(ticket)
            elif self._has_room(ticket.claim):
                self._waitlist.take_turn()
                self._take(ticket.claim)
                ticket.future.set_result(None)
            else:
                return
