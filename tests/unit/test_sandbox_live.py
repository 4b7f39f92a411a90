"""A live execution: samples in order, the result at the end, and no reader that holds it up."""

import asyncio

import pytest

from sandbox.errors import RequestError
from sandbox.live import KEPT_SAMPLES, watched
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.result import ExecutionResult
from sandbox.testing import FakeExecutor, fake_sample

REQUEST = ExecutionRequest(language="python", files=[SourceFile(path="main.py", content=b"print(1)")])


async def test_samples_come_in_order_and_the_result_at_the_end() -> None:
    """Every sample is seen once; the iteration ends with the execution."""
    samples = [fake_sample(elapsed_s=n / 10) for n in range(5)]
    async with watched(FakeExecutor(samples=samples), REQUEST) as live:
        seen = [sample async for sample in live]
    assert (seen, live.result.stdout.data) == (samples, b"print(1)")


async def test_slow_reader_gets_the_newest() -> None:
    """What nobody read in time is dropped, oldest first."""
    samples = [fake_sample(elapsed_s=n) for n in range(KEPT_SAMPLES + 10)]
    async with watched(FakeExecutor(samples=samples), REQUEST) as live:
        for _ in range(10):
            await asyncio.sleep(0)
        seen = [sample async for sample in live]
    assert seen == samples[10:]


async def test_error_of_the_execution_ends_the_iteration() -> None:
    """A refused request raises in the loop as it would from execute, and where a result is asked for."""

    def refuse(request: ExecutionRequest) -> ExecutionResult:
        raise RequestError("language: no")

    async with watched(FakeExecutor(refuse), REQUEST) as live:
        with pytest.raises(RequestError, match="language: no"):
            await anext(live)
    with pytest.raises(RequestError):
        _ = live.result


async def test_reader_that_leaves_ends_the_execution() -> None:
    """Breaking out of the loop cancels the program; there is no result then."""
    executor = FakeExecutor(samples=[fake_sample(elapsed_s=0.1)], delay_s=60)
    async with watched(executor, REQUEST) as live:
        async for _ in live:
            break
    assert executor.cancelled_count == 1
    with pytest.raises(RuntimeError, match="left before it had ended"):
        _ = live.result


async def test_error_of_the_reader_ends_the_execution_and_is_its_own() -> None:
    """What is raised in the body comes out as it is."""
    executor = FakeExecutor(delay_s=60)

    async def read() -> None:
        async with watched(executor, REQUEST):
            await asyncio.sleep(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert executor.cancelled_count == 1
