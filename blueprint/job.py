"""What a job is to the node: one type of callable, the schemas declared for it, and how a failure is told.

Invariant: handler, layer and router speak through `Handler` alone, so that any of them can wrap any other.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from blueprint.types import JobCall

__all__ = ["MAX_JOB_INDEX", "Failure", "FailureEncoder", "FailureStatus", "Handler", "JobSchema", "Layer"]

MAX_JOB_INDEX = 255
"""A job index is a ``uint8`` on chain."""

Handler = Callable[[JobCall], Awaitable[bytes]]
"""Takes a job call, returns the bytes of its result."""

Layer = Callable[[Handler], Handler]
"""Wraps a handler: with a limit, a log line, a retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSchema:
    """What the chain declares for one job: TLV version 2 schemas; empty means ABI, unchecked on chain."""

    params: bytes = b""
    result: bytes = b""


class FailureStatus(IntEnum):
    """Why a call is answered with an error. The numbers are part of the on-chain format and never change."""

    REJECTED = 20  # the inputs are wrong; nothing was run
    SYSTEM_ERROR = 21  # the node failed; the same call may work when it is made again


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an error answer says."""

    status: FailureStatus
    message: str
    """For people: what was wrong, what was expected, what to do. Never a secret, never a path of the node."""


FailureEncoder = Callable[[Failure], bytes]
"""Turns a failure into the bytes of a job's own kind of result."""
