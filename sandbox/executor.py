"""The Code Executor: takes an `ExecutionRequest`, returns an `ExecutionResult`."""

from collections.abc import Sequence
from typing import Protocol

from sandbox.request import ExecutionRequest
from sandbox.result import ExecutionResult
from sandbox.tree import Runtime

__all__ = ["Executor"]


class Executor(Protocol):
    """Whatever executes requests: the real `CodeExecutor`, the fake in `sandbox.testing`, or a remote one."""

    async def execute(self, request: ExecutionRequest) -> ExecutionResult:
        """Run one program; cancelling the awaiting task kills it and removes everything of it.

        Raises:
            RequestError: the request cannot be served as it is; nothing was run.
            SandboxUnavailableError: this machine lacks a mechanism; nothing was run.
            SystemFailureError: our own part failed; the same request may succeed when repeated.
        """

    def runtimes(self) -> Sequence[Runtime]:
        """List every language and version that can be asked for."""

    async def aclose(self) -> None:
        """Kill what runs, free what is held; the executor is of no use afterwards."""
