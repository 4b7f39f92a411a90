"""The errors of the sandbox, in one tree.

::

    SandboxError
      SandboxUnavailableError   a mechanism of the kernel or a program is missing; the message holds the fix
      RequestError              the request is malformed; nothing was run
      SystemFailureError        our own part failed while the request ran; running it again may work
        BusyError                 nothing was run: no room now, nor in the queue; it says when to come back

Invariant: a user's program that fails is an `ExecutionResult`, never one of these.
"""

from typing import ClassVar

__all__ = ["BusyError", "RequestError", "SandboxError", "SandboxUnavailableError", "SystemFailureError"]


class SandboxError(Exception):
    """Root of every error raised on purpose by this package."""

    retryable: ClassVar[bool] = False


class SandboxUnavailableError(SandboxError):
    """A mechanism that a guarantee rests on is missing on this machine; the message says how to get it."""


class RequestError(SandboxError):
    """The execution request is malformed; the message names the field, what is expected and what came."""


class SystemFailureError(SandboxError):
    """Our own part failed (not the user's program); the same request may succeed when repeated."""

    retryable = True


class BusyError(SystemFailureError):
    """There is no room for the request now, and none in the queue, or the service is being stopped.

    Attributes:
        retry_after_s: when to come back, in seconds; an estimate.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(f"{message}; try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s
