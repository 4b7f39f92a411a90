"""The public fakes themselves: a clock that stands still, a call made up for a handler."""

import asyncio

from blueprint.keccak import keccak256
from blueprint.testing import FakeChain, FakeClock, job_call
from blueprint.types import Address


async def test_sleepers_wake_in_the_order_of_their_moments() -> None:
    """Moving the clock wakes whose time has come, and nobody else."""
    clock = FakeClock(now=0)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(f"{name} at {clock():g}")

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 5), ("early", 2), ("never late", 0)):
            group.create_task(sleeper(name, seconds))
        await asyncio.sleep(0.001)
        await clock.advance(3)
        halfway = list(woken)
        await clock.advance(3)
    assert halfway == ["never late at 0", "early at 2"]
    assert woken[-1] == "late at 5"


def test_a_made_up_call_is_whole() -> None:
    """A handler's test gets a call whose hash fits its inputs."""
    call = job_call(b"abc", job_index=2, call_id=7)
    assert (call.inputs_hash, call.job_index, call.key.call_id) == (keccak256(b"abc"), 2, 7)


async def test_the_chain_forgets_what_is_undone() -> None:
    """After a reorganisation the call's id is free again, and the blocks are others."""
    chain = FakeChain(operators=[Address(b"\x01" * 20)])
    question = ("eth_getBlockByNumber", "0x1", False)
    first = chain.submit_job(b"a")
    before = await chain.call(*question)
    chain.reorg(1)
    after = await chain.call(*question)
    assert chain.submit_job(b"b") == first
    assert before != after


async def test_the_chain_keeps_what_it_is_told_to_keep() -> None:
    """A reorganisation may mine the same jobs again."""
    chain = FakeChain(operators=[Address(b"\x01" * 20)])
    chain.submit_job(b"a")
    chain.reorg(1, keep=True)
    assert len(chain.service.calls) == 1
    assert chain.head_number == 2
