"""One execution as it goes on: an asynchronous iterator over its figures, and its result at the end.

Example::

    async with watched(executor, request) as live:
        async for sample in live:
            print(sample.elapsed_s, sample.memory_bytes)
    print(live.result.status)

Invariant: a reader never delays the program: a slow one misses samples, one that leaves ends the execution.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandbox.errors import SandboxError
from sandbox.executor import Executor
from sandbox.request import ExecutionRequest
from sandbox.result import ExecutionResult, StageSample

__all__ = ["LiveExecution", "watched"]

KEPT_SAMPLES = 64


class LiveExecution:
    """Iterates over the newest samples until the execution has ended.

    Iterating raises what the execution raises, see `Executor.execute`.
    """

    def __init__(self) -> None:
        self._samples: deque[StageSample] = deque(maxlen=KEPT_SAMPLES)
        self._news = asyncio.Event()
        self._has_ended = False
        self._result: ExecutionResult | None = None
        self._error: SandboxError | None = None

    def __aiter__(self) -> AsyncIterator[StageSample]:
        return self

    async def __anext__(self) -> StageSample:
        while not self._samples:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._samples.popleft()

    @property
    def result(self) -> ExecutionResult:
        """How it ended.

        Raises:
            SandboxError: what the execution raised.
            RuntimeError: it has not ended, or was left before its end.
        """
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise RuntimeError("there is no result: the execution was left before it had ended")
        return self._result

    def take(self, sample: StageSample) -> None:
        """Keep a sample for the reader, in place of the oldest where too many wait."""
        self._samples.append(sample)
        self._news.set()

    async def follow(self, executor: Executor, request: ExecutionRequest) -> None:
        """Execute a request and keep what comes of it."""
        try:
            self._result = await executor.execute(request, self.take)
        except SandboxError as exc:
            self._error = exc
        finally:
            self._has_ended = True
            self._news.set()


@asynccontextmanager
async def watched(executor: Executor, request: ExecutionRequest) -> AsyncIterator[LiveExecution]:
    """Start an execution and hand it out; who leaves before its end kills it and waits for the removal."""
    live = LiveExecution()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(live.follow(executor, request))
            try:
                yield live
            finally:
                task.cancel()
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
