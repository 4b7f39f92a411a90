"""Work that several ask for at once is done once."""

import asyncio

import pytest

from sandbox.dependencies.flights import Flights


class Work:
    """Counts how often it was begun; ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.error = error

    async def __call__(self) -> int:
        self.begun += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.begun


class Clock:
    """Goes on by a second whenever it is looked at."""

    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def some_flights() -> Flights[int]:
    """Return flights whose even outcomes are failures."""
    return Flights(lambda outcome: outcome % 2 == 0, Clock())


LATER = 1000.0
"""After every failure of a test."""


async def asked(flights: Flights[int], work: Work, count: int, key: str = "key") -> list[asyncio.Task[int]]:
    """Ask ``count`` times at once, and wait until all of them wait."""
    tasks = [asyncio.create_task(flights.join(key, LATER, work)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_those_who_ask_at_once_share_the_outcome() -> None:
    """A hundred callers get what one of them did; whoever asks afterwards has it done anew."""
    flights, work = some_flights(), Work()
    tasks = await asked(flights, work, 100)
    work.may_end.set()
    assert set(await asyncio.gather(*tasks)) == {1}
    assert await flights.join("key", LATER, work) == 2


async def test_a_failure_is_shared_and_not_kept() -> None:
    """All that waited get the same error, nobody tries again for each of them; the next caller does."""
    flights, work = some_flights(), Work(RuntimeError("no"))
    tasks = await asked(flights, work, 50)
    work.may_end.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {str(result) for result in results} == {"no"}
    assert work.begun == 1
    work.error = None
    assert await flights.join("key", LATER, work) == 2


async def test_the_next_begins_again_when_who_did_the_work_is_cancelled() -> None:
    """A cancelled caller takes nobody with it, and one that only waited disturbs nobody."""
    flights, work = some_flights(), Work()
    first, second, third = await asked(flights, work, 3)
    first.cancel()
    third.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert work.begun == 2
    work.may_end.set()
    assert await second == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_different_keys_do_not_wait_for_each_other() -> None:
    """Work of another key goes on meanwhile."""
    flights, slow, quick = some_flights(), Work(), Work()
    (waiting,) = await asked(flights, slow, 1)
    quick.may_end.set()
    assert await flights.join("other", LATER, quick) == 1
    slow.may_end.set()
    assert await waiting == 1


async def test_who_asked_before_a_failure_gets_it_however_late() -> None:
    """One that waited for something else meanwhile does not try again; one that asked afterwards does."""
    flights, work = some_flights(), Work()
    work.may_end.set()
    work.begun = 1
    assert await flights.join("key", 0.0, work) == 2
    assert await flights.join("key", 0.5, work) == 2
    assert work.begun == 2
    assert await flights.join("key", 1.5, work) == 3
    assert await flights.join("key", 0.5, work) == 4
