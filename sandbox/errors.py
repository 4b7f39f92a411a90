"""The errors of the sandbox, in one tree.

::

    SandboxError
      SandboxUnavailableError   a mechanism of the kernel or a program is missing; the message holds the fix
      RequestError              the request is malformed; nothing was run
      SystemFailureError        our own part failed while the request ran; running it again may work

Invariant: a user's program that fails is an `ExecutionResult`, never one of these.
"""

from typing import ClassVar

__all__ = ["RequestError", "SandboxError", "SandboxUnavailableError", "SystemFailureError"]


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
