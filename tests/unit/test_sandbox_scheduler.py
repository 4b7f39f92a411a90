"""Admission: places, order, and a bounded queue."""

import asyncio

import pytest

from sandbox.errors import SystemFailureError
from sandbox.scheduler import Scheduler


async def test_those_who_wait_are_admitted_in_order() -> None:
    """One place, three who want it: they get it in the order in which they came."""
    scheduler = Scheduler(max_concurrent=1, max_waiting=10)
    order: list[int] = []

    async def work(number: int) -> None:
        async with scheduler.admit():
            order.append(number)
            assert scheduler.running == 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(work(number))
    assert (order, scheduler.running, scheduler.waiting) == ([0, 1, 2], 0, 0)


async def test_full_queue_refuses_with_an_error_that_may_be_retried() -> None:
    """One place taken and one waiting: the third is refused at once."""
    scheduler = Scheduler(max_concurrent=1, max_waiting=1)
    async with scheduler.admit(), asyncio.TaskGroup() as group:
        waiter = group.create_task(_enter(scheduler))
        await asyncio.sleep(0)
        with pytest.raises(SystemFailureError, match="1 executions run and 1 wait") as refusal:
            await _enter(scheduler)
        assert refusal.value.retryable
        waiter.cancel()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_cancelled_waiter_gives_its_turn_to_the_next() -> None:
    """Who stops waiting does not hold up those behind."""
    scheduler = Scheduler(max_concurrent=1, max_waiting=10)
    async with asyncio.TaskGroup() as group:
        async with scheduler.admit():
            first = group.create_task(_enter(scheduler))
            second = group.create_task(_enter(scheduler))
            await asyncio.sleep(0)
            first.cancel()
        async with asyncio.timeout(5):
            await second
    assert (first.cancelled(), scheduler.running) == (True, 0)


def test_scheduler_without_places_is_refused() -> None:
    """Zero places would wait for ever."""
    with pytest.raises(ValueError, match="at least one place"):
        Scheduler(max_concurrent=0, max_waiting=1)


async def _enter(scheduler: Scheduler) -> None:
    async with scheduler.admit():
        pass
