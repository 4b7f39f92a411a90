"""A fake executor for those who test a handler: no kernel, no tree, milliseconds.

Invariant: results of the fake are shaped like real ones (digests and sizes agree with the data), and say by
``guarantees.backend == "fake"`` that nothing was in force.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from sandbox.request import ExecutionRequest
from sandbox.result import (
    CapturedStream,
    ExecutionResult,
    ExecutionStatus,
    Guarantees,
    LimitKind,
    OutputFile,
    ProcessStats,
    RuntimeUsed,
)
from sandbox.tree import Runtime

__all__ = ["FakeExecutor", "captured", "fake_result"]

TREE_DIGEST = hashlib.sha256(b"fake tree").hexdigest()


def captured(data: bytes, *, keep_bytes: int | None = None) -> CapturedStream:
    """Build the record of a stream on which ``data`` was printed and at most ``keep_bytes`` bytes were kept."""
    return CapturedStream(
        data=data[:keep_bytes], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


def fake_result(
    *,
    status: ExecutionStatus = ExecutionStatus.SUCCESS,
    stdout: bytes = b"",
    stderr: bytes = b"",
    exit_code: int | None = 0,
    signal: int | None = None,
    limits_hit: LimitKind = LimitKind.NONE,
    error_message: str = "",
    files: Sequence[OutputFile] = (),
    language: str = "python",
    version: str = "3.13.5",
    sandbox_id: str = "fake",
) -> ExecutionResult:
    """Build a result as the real executor would, from the parts that a test cares about."""
    return ExecutionResult(
        sandbox_id=sandbox_id,
        status=status,
        limits_hit=limits_hit,
        exit_code=exit_code,
        signal=signal,
        stdout=captured(stdout),
        stderr=captured(stderr),
        process_stats=ProcessStats(
            wall_time_s=0.012, user_time_s=0.008, system_time_s=0.003, memory_peak_bytes=9 * 1024 * 1024
        ),
        runtime=RuntimeUsed(language=language, version=version, tree_digest=TREE_DIGEST),
        guarantees=Guarantees(backend="fake", enforced=frozenset()),
        files=files,
        error_message=error_message,
    )


class FakeExecutor:
    """Answers each request by a function, and keeps the requests.

    Args:
        answer: makes the result of a request, or raises what the real executor would raise. Without it each
            program "prints" its own source (the first file) and succeeds.
        delay_s: how long each execution takes; it can be cancelled meanwhile.

    Attributes:
        requests: every request that was started, in order.
        cancelled_count: how many executions were cancelled while they waited.
        is_closed: True after `aclose`.
    """

    def __init__(
        self, answer: Callable[[ExecutionRequest], ExecutionResult] | None = None, *, delay_s: float = 0.0
    ) -> None:
        self._answer = answer or _print_source
        self._delay_s = delay_s
        self.requests: list[ExecutionRequest] = []
        self.cancelled_count = 0
        self.is_closed = False

    async def execute(self, request: ExecutionRequest) -> ExecutionResult:
        """Record the request, wait the delay, answer."""
        self.requests.append(request)
        try:
            await asyncio.sleep(self._delay_s)
        except asyncio.CancelledError:
            self.cancelled_count += 1
            raise
        return self._answer(request)

    def runtimes(self) -> Sequence[Runtime]:
        """List one runtime, that of `fake_result`'s defaults."""
        return (Runtime(language="python", version="3.13.5", programs={"run": "/usr/bin/python3"}),)

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


def _print_source(request: ExecutionRequest) -> ExecutionResult:
    return fake_result(stdout=request.files[0].content if request.files else b"", language=request.language)
