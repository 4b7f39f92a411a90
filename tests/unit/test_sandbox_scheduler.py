"""Admission: never more than the capacity, turns, a bounded queue, and nothing left after any end."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandbox.capacity import Capacity
from sandbox.errors import BusyError, RequestError
from sandbox.request import MIB, Priority
from sandbox.scheduler import Claim, Scheduler

ROOMY = Capacity(memory_bytes=1024 * MIB, cpus=64.0)


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_scheduler(capacity: Capacity = ROOMY, **options: object) -> Scheduler:
    return Scheduler(capacity, **{"max_waiting": 10, **options})  # type: ignore[arg-type]


def a_claim(memory_mib: int = 1, **parts: object) -> Claim:
    return Claim(memory_bytes=memory_mib * MIB, **parts)  # type: ignore[arg-type]


class Worker:
    """A task that asks for admission, holds it until told to leave, and knows how far it is."""

    def __init__(self, scheduler: Scheduler, claim: Claim) -> None:
        self.claim = claim
        self.is_in = False
        self._leave = asyncio.Event()
        self._scheduler = scheduler
        self.task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        async with self._scheduler.admit(self.claim):
            self.is_in = True
            await self._leave.wait()

    def leave(self) -> None:
        self._leave.set()


async def settle() -> None:
    """Let every task run until nothing moves any more."""
    for _ in range(10):
        await asyncio.sleep(0)


async def workers(scheduler: Scheduler, *claims: Claim) -> list[Worker]:
    started = []
    for claim in claims:
        started.append(Worker(scheduler, claim))
        await settle()
    return started


async def end(*all_workers: Worker) -> None:
    """Let all go, and wait for their ends."""
    for worker in all_workers:
        worker.leave()
    await asyncio.gather(*(worker.task for worker in all_workers), return_exceptions=True)


async def test_memory_bounds_what_runs_together() -> None:
    """Two of 400 MiB fit into 1 GiB, a third waits until one leaves."""
    scheduler = a_scheduler()
    three = await workers(scheduler, a_claim(400), a_claim(400), a_claim(400))
    assert [worker.is_in for worker in three] == [True, True, False]
    load = scheduler.load
    assert (load.running, load.waiting, load.reserved) == (2, 1, Capacity(memory_bytes=800 * MIB, cpus=2.0))
    await end(three[0])
    await settle()
    assert three[2].is_in
    await end(*three)
    assert scheduler.load.reserved == Capacity(memory_bytes=0, cpus=0.0)


async def test_cpus_bound_what_runs_together() -> None:
    """Ten shares of 0.1 fill one CPU in spite of rounding, and an eleventh waits."""
    scheduler = a_scheduler(Capacity(memory_bytes=1024 * MIB, cpus=1.0))
    many = await workers(scheduler, *(a_claim(cpus=0.1) for _ in range(11)))
    assert [worker.is_in for worker in many] == [True] * 10 + [False]
    await end(*many)
    assert scheduler.load.reserved.cpus == 0.0


async def test_configured_number_bounds_what_runs_together() -> None:
    """However little they reserve, no more run than configured."""
    scheduler = a_scheduler(max_concurrent=2)
    many = await workers(scheduler, *(a_claim() for _ in range(3)))
    assert [worker.is_in for worker in many] == [True, True, False]
    await end(*many)


@pytest.mark.parametrize("claim", [a_claim(2000), a_claim(cpus=65.0)])
async def test_claim_that_can_never_fit_is_refused_at_once(claim: Claim) -> None:
    """Waiting would not help it: the error is the request's, and says what there is."""
    with pytest.raises(RequestError, match="all that this machine can give is 1024 MiB and 64") as refusal:
        async with a_scheduler().admit(claim):
            pass
    assert not refusal.value.retryable


async def test_large_claim_is_not_overtaken_by_a_stream_of_small_ones() -> None:
    """Its turn has come: those behind wait with it, though they would fit."""
    scheduler = a_scheduler()
    first, large, small = await workers(scheduler, a_claim(600), a_claim(600), a_claim(1))
    assert (large.is_in, small.is_in) == (False, False)
    await end(first)
    await settle()
    assert (large.is_in, small.is_in) == (True, True)
    await end(large, small)


async def test_urgent_claim_goes_before_a_large_one_that_waits_for_room() -> None:
    """A newcomer whose turn comes first is admitted at once when there is room for it."""
    scheduler = a_scheduler()
    first, large = await workers(scheduler, a_claim(600), a_claim(600))
    (urgent,) = await workers(scheduler, a_claim(1, priority=Priority.HIGH))
    assert (large.is_in, urgent.is_in) == (False, True)
    await end(first, large, urgent)


async def test_flooding_caller_does_not_delay_anothers_first() -> None:
    """With 500 of one caller waiting, another's first is admitted at the next but one end."""
    scheduler = a_scheduler(max_concurrent=1, max_waiting=1000)
    many = await workers(scheduler, *(a_claim(caller="flood") for _ in range(500)))
    (small,) = await workers(scheduler, a_claim(caller="small"))
    await end(many[0])
    await settle()
    await end(many[1])
    await settle()
    assert small.is_in
    await end(small, *many)


async def test_full_queue_says_when_to_come_back() -> None:
    """The estimate is made of how long executions take and how many wait; the error may be retried."""
    clock = Clock()
    scheduler = a_scheduler(max_concurrent=1, max_waiting=6, clock=clock)
    for _ in range(100):  # executions of four seconds each
        (one,) = await workers(scheduler, a_claim())
        clock.now += 4
        await end(one)
    many = await workers(scheduler, *(a_claim() for _ in range(7)))
    with pytest.raises(BusyError, match="1 executions run and 6 wait: the queue is full; try again") as busy:
        async with scheduler.admit(a_claim()):
            pass
    assert busy.value.retryable
    assert busy.value.retry_after_s == pytest.approx(4.0 * 3, rel=0.01)
    await end(*many)


async def test_queue_full_of_one_caller_takes_anothers_first() -> None:
    """The newest of the caller with the most makes room, and is told so."""
    scheduler = a_scheduler(max_concurrent=1, max_waiting=3)
    many = await workers(scheduler, *(a_claim(caller="flood") for _ in range(4)))
    (small,) = await workers(scheduler, a_claim(caller="small"))
    with pytest.raises(BusyError, match="its place went to a caller who has fewer"):
        await many[3].task
    assert (scheduler.waiting, small.task.done()) == (3, False)
    await end(small, *many)


async def test_waiter_that_is_cancelled_leaves_the_queue_at_once() -> None:
    """Who stops waiting holds up nobody, also when only it was in the way."""
    scheduler = a_scheduler()
    first, large, small = await workers(scheduler, a_claim(600), a_claim(600), a_claim(1))
    large.task.cancel()
    await settle()
    assert (large.task.cancelled(), small.is_in, scheduler.waiting) == (True, True, 0)
    await end(first, small)


async def test_cancellation_at_the_moment_of_admission_gives_the_place_on() -> None:
    """Admitted, and cancelled before its task ran: the place is not lost."""
    scheduler = a_scheduler(max_concurrent=1)
    first, second, third = await workers(scheduler, a_claim(), a_claim(), a_claim())
    first.leave()
    while scheduler.waiting == 2:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0)
    second.task.cancel()
    await settle()
    assert (second.task.cancelled(), second.is_in, third.is_in, scheduler.running) == (True, False, True, 1)
    await end(third)


async def test_place_is_given_on_to_no_one_who_was_just_cancelled() -> None:
    """Cancelled while another leaves: the turn goes to the next, in the same moment."""
    scheduler = a_scheduler(max_concurrent=1)
    first, second, third = await workers(scheduler, a_claim(), a_claim(), a_claim())
    first.leave()
    second.task.cancel()
    await settle()
    assert (third.is_in, scheduler.running, scheduler.waiting) == (True, 1, 0)
    await end(third)


async def test_place_is_given_back_after_an_error() -> None:
    """An execution that raises leaves nothing reserved."""
    scheduler = a_scheduler()
    with pytest.raises(ZeroDivisionError):
        async with scheduler.admit(a_claim()):
            raise ZeroDivisionError
    assert (scheduler.running, scheduler.load.reserved) == (0, Capacity(memory_bytes=0, cpus=0.0))


async def test_drain_refuses_who_waits_and_lets_end_who_runs() -> None:
    """Nobody is admitted any more, not even when a place is free; the last end ends the drain."""
    scheduler = a_scheduler(max_concurrent=1)
    runs, waits = await workers(scheduler, a_claim(), a_claim())
    draining = asyncio.get_running_loop().create_task(scheduler.drain(60))
    await settle()
    with pytest.raises(BusyError, match="has not started"):
        await waits.task
    with pytest.raises(BusyError, match="nothing is admitted any more"):
        async with scheduler.admit(a_claim()):
            pass
    assert (draining.done(), scheduler.running) == (False, 1)
    await end(runs)
    assert await draining == 0


async def test_drain_without_grace_says_how_many_still_run() -> None:
    """What does not end in time is the caller's to cancel."""
    scheduler = a_scheduler()
    two = await workers(scheduler, a_claim(), a_claim())
    assert await scheduler.drain(0) == 2
    await end(*two)


def test_scheduler_without_places_is_refused() -> None:
    """Zero places would wait for ever."""
    with pytest.raises(ValueError, match="at least one place"):
        a_scheduler(max_concurrent=0)


class Traffic(RuleBasedStateMachine):
    """Arrivals, ends, errors and cancellations in any order; time stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.scheduler = self.run(self._make())
        self.alive: list[Worker] = []

    async def _make(self) -> Scheduler:
        capacity = Capacity(memory_bytes=100 * MIB, cpus=4.0)
        return Scheduler(capacity, max_concurrent=6, max_waiting=8, clock=Clock())

    def run(self, work):
        return self.runner.run(work)

    @rule(
        memory_mib=st.integers(1, 100),
        cpus=st.sampled_from([0.1, 0.3, 1.0, 4.0]),
        caller=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
    )
    def arrive(self, memory_mib: int, cpus: float, caller: str, priority: Priority) -> None:
        claim = a_claim(memory_mib, cpus=cpus, caller=caller, priority=priority)
        self.alive.extend(self.run(workers(self.scheduler, claim)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def several_leave_or_are_cancelled_at_once(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.alive), max_size=4))
        acts = [data.draw(st.sampled_from([worker.leave, worker.task.cancel])) for worker in chosen]

        async def act() -> None:
            for each in acts:
                each()
                if data.draw(st.booleans()):
                    await asyncio.sleep(0)

        self.run(act())

    @invariant()
    def holds_what_runs_and_no_more(self) -> None:
        self.run(settle())
        for worker in self.alive:
            if worker.task.done() and not worker.task.cancelled() and worker.task.exception() is not None:
                assert isinstance(worker.task.exception(), BusyError)
        self.alive = [worker for worker in self.alive if not worker.task.done()]
        load, inside = self.scheduler.load, [worker for worker in self.alive if worker.is_in]
        assert (load.running, load.waiting) == (len(inside), len(self.alive) - len(inside))
        assert load.reserved.memory_bytes == sum(worker.claim.memory_bytes for worker in inside)
        assert load.reserved.cpus == pytest.approx(sum(worker.claim.cpus for worker in inside), abs=1e-6)
        assert load.reserved.memory_bytes <= load.capacity.memory_bytes
        assert load.reserved.cpus <= load.capacity.cpus + 1e-6
        assert load.running <= 6
        assert load.waiting <= 8
        if load.waiting:  # and no place is left empty
            first = self.scheduler._waitlist.first()
            assert first is not None
            assert not self.scheduler._has_room(first.claim)

    def teardown(self) -> None:
        async def finish() -> None:
            while self.alive:
                for worker in self.alive:
                    worker.leave()
                await settle()
                self.alive = [worker for worker in self.alive if not worker.task.done()]

        self.run(finish())
        assert (self.scheduler.load.running, self.scheduler.load.reserved.memory_bytes) == (0, 0)
        self.runner.close()


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
