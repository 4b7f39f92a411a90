"""The fake executor keeps the port's promises."""

import asyncio
import hashlib

import pytest

from sandbox.errors import SystemFailureError
from sandbox.executor import Executor
from sandbox.request import ExecutionRequest, SourceFile
from sandbox.result import ExecutionResult, ExecutionStatus
from sandbox.testing import FakeExecutor, captured, fake_result


def a_request() -> ExecutionRequest:
    """Build a request with one file."""
    return ExecutionRequest(language="python", files=[SourceFile(path="main.py", content=b"print(1)")])


async def test_fake_without_an_answer_prints_the_source() -> None:
    """A fake that is told nothing succeeds and returns the program's own text."""
    executor: Executor = FakeExecutor()
    result = await executor.execute(a_request())
    assert (result.status, result.stdout.data) == (ExecutionStatus.SUCCESS, b"print(1)")
    assert result.guarantees.backend == "fake"
    assert executor.runtimes()[0].language == "python"


async def test_fake_raises_what_its_answer_raises() -> None:
    """A test can make the executor fail as ours would."""

    def fail(_: ExecutionRequest) -> ExecutionResult:
        raise SystemFailureError("the disk is gone")

    with pytest.raises(SystemFailureError, match="the disk is gone"):
        await FakeExecutor(fail).execute(a_request())


async def test_fake_counts_a_cancelled_execution() -> None:
    """Cancelling the awaiting task is seen by the fake, as the real one sees it."""
    executor = FakeExecutor(delay_s=60)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(executor.execute(a_request()))
        await asyncio.sleep(0)
        task.cancel()
    assert (len(executor.requests), executor.cancelled_count) == (1, 1)
    await executor.aclose()
    assert executor.is_closed


def test_captured_stream_counts_and_digests_what_it_does_not_keep() -> None:
    """Size and digest speak of everything that was printed, the data of what was kept."""
    stream = captured(b"abcdef", keep_bytes=2)
    assert (stream.data, stream.size_bytes, stream.is_truncated) == (b"ab", 6, True)
    assert hashlib.sha256(b"abcdef").hexdigest() == stream.sha256


def test_fake_result_carries_the_parts_given() -> None:
    """A result built for a failure holds its status and message."""
    result = fake_result(status=ExecutionStatus.TIMEOUT, exit_code=None, error_message="too slow")
    assert (
        result.status,
        result.exit_code,
        result.error_message,
    ) == (ExecutionStatus.TIMEOUT, None, "too slow")
