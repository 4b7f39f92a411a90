"""Fakes for tests: an executor for those who test a handler, a back end for those who test an executor.

Invariant: results of the fake are shaped like real ones (digests and sizes agree with the data), and say by
``guarantees.backend == "fake"`` that nothing was in force.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.backends.backend import BoxUsage, Mount, OnSample, StageOrder, StageOutcome, StageUsage
from sandbox.request import ExecutionRequest, Limits
from sandbox.result import (
    CapturedStream,
    ExecutionResult,
    ExecutionStatus,
    Guarantees,
    LimitKind,
    OutputFile,
    ProcessStats,
    RuntimeUsed,
    StageSample,
)
from sandbox.tree import LanguageTree, Runtime

__all__ = [
    "FakeBackend",
    "FakeExecutor",
    "FakeSandbox",
    "captured",
    "fake_outcome",
    "fake_result",
    "fake_sample",
]

TREE_DIGEST = hashlib.sha256(b"fake tree").hexdigest()


def captured(data: bytes, *, keep_bytes: int | None = None) -> CapturedStream:
    """Build the record of a stream: ``data`` was printed, at most ``keep_bytes`` bytes were kept."""
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


def fake_sample(*, elapsed_s: float, stage: str = "run", memory_bytes: int = 9 * 1024 * 1024) -> StageSample:
    """Build live figures of a program that works half of its time."""
    return StageSample(
        stage=stage,
        elapsed_s=elapsed_s,
        memory_bytes=memory_bytes,
        memory_anonymous_bytes=memory_bytes,
        memory_file_bytes=0,
        user_time_s=elapsed_s / 2,
        system_time_s=0.0,
        processes=1,
        disk_bytes=4096,
        stdout_bytes=0,
        stderr_bytes=0,
    )


class FakeExecutor:
    """Answers each request by a function, and keeps the requests.

    Args:
        answer: makes the result of a request, or raises what the real executor would raise. Without it each
            program "prints" its own source (the first file) and succeeds.
        delay_s: how long each execution takes; it can be cancelled meanwhile.
        samples: live figures that each execution gives at its start.

    Attributes:
        requests: every request that was started, in order.
        cancelled_count: how many executions were cancelled while they waited.
        is_closed: True after `aclose`.
    """

    def __init__(
        self,
        answer: Callable[[ExecutionRequest], ExecutionResult] | None = None,
        *,
        delay_s: float = 0.0,
        samples: Sequence[StageSample] = (),
    ) -> None:
        self._answer = answer or _print_source
        self._delay_s = delay_s
        self._samples = samples
        self.requests: list[ExecutionRequest] = []
        self.cancelled_count = 0
        self.is_closed = False

    async def execute(
        self,
        request: ExecutionRequest,
        on_sample: OnSample | None = None,
    ) -> ExecutionResult:
        """Record the request, give the samples, wait the delay, answer."""
        self.requests.append(request)
        if on_sample is not None:
            for sample in self._samples:
                on_sample(sample)
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


def fake_outcome(
    *,
    exit_code: int | None = 0,
    signal: int | None = None,
    killed_for: LimitKind = LimitKind.NONE,
    limits_hit: LimitKind = LimitKind.NONE,
    stdout: bytes = b"",
    stderr: bytes = b"",
    usage: StageUsage | None = None,
) -> StageOutcome:
    """Build the outcome of a stage from the parts that a test cares about."""
    return StageOutcome(
        exit_code=exit_code,
        signal=signal,
        killed_for=killed_for,
        limits_hit=limits_hit | killed_for,
        stdout=captured(stdout),
        stderr=captured(stderr),
        usage=usage or StageUsage(wall_time_s=0.01, user_time_s=0.005, system_time_s=0.002),
        guarantees=Guarantees(backend="fake", enforced=frozenset({"nothing"})),
    )


class FakeSandbox:
    """A sandbox in which nothing runs: a folder of the machine's own, and answers from a function.

    Attributes:
        folder: holds ``work``, ``tmp`` and ``shm`` until `destroy`.
        orders: every stage that was run.
        is_destroyed: True after `destroy`.
    """

    owner_uid: int | None = None

    def __init__(self, answer: "Callable[[FakeSandbox, StageOrder], StageOutcome]", delay_s: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fake-sandbox-"))
        for name in ("work", "tmp", "shm"):
            (self.folder / name).mkdir()
        self.files_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.orders: list[StageOrder] = []
        self.is_destroyed = False
        self._answer = answer
        self._delay_s = delay_s

    async def run(
        self,
        order: StageOrder,
        on_sample: OnSample | None = None,  # noqa: ARG002 - the port's signature; a fake uses nothing
    ) -> StageOutcome:
        """Record the stage, wait the delay, answer."""
        self.orders.append(order)
        await asyncio.sleep(self._delay_s)
        return self._answer(self, order)

    def usage(self) -> BoxUsage | None:
        """Count the files that lie in the folder."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return BoxUsage(
            disk_bytes=sum(path.stat().st_size for path in files),
            inodes=len(files),
            is_full=False,
            is_out_of_inodes=False,
        )

    async def destroy(self) -> None:
        """Remove the folder."""
        if not self.is_destroyed:
            self.is_destroyed = True
            os.close(self.files_fd)
            shutil.rmtree(self.folder)


class FakeBackend:
    """Makes fake sandboxes, and keeps them.

    Args:
        answer: what a stage comes to; it may write files into the sandbox's folder, or raise.
        delay_s: how long each stage takes; it can be cancelled meanwhile.
    """

    name = "fake"

    def __init__(
        self,
        answer: Callable[[FakeSandbox, StageOrder], StageOutcome] = lambda _sandbox, _order: fake_outcome(),
        *,
        delay_s: float = 0.0,
    ) -> None:
        self.sandboxes: list[FakeSandbox] = []
        self.is_closed = False
        self._answer = answer
        self._delay_s = delay_s

    def guarantees(self) -> Guarantees:
        """Say that nothing is in force."""
        return Guarantees(backend=self.name, enforced=frozenset())

    async def open(  # the port's signature; a fake needs none of it
        self,
        tree: LanguageTree,  # noqa: ARG002
        limits: Limits,  # noqa: ARG002
        sandbox_id: str,  # noqa: ARG002
        mounts: Sequence[Mount] = (),  # noqa: ARG002
    ) -> FakeSandbox:
        """Make a fake sandbox."""
        sandbox = FakeSandbox(self._answer, self._delay_s)
        self.sandboxes.append(sandbox)
        return sandbox

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.is_closed = True
