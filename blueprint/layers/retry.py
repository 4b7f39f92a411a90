"""A layer that runs a handler again after a failure that says of itself that it may pass.

Invariant: retries are bounded per call and over all calls, so that a node whose sandbox is broken does not
spend its time on repeating what cannot work.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from blueprint.errors import PostponedError, Rejection
from blueprint.job import Handler, Layer
from blueprint.types import JobCall

__all__ = ["RetryBudget", "retry"]

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class RetryBudget:
    """How many retries all calls together may use: a success earns a part of one, a retry spends one."""

    capacity: float = 10.0
    earned_per_success: float = 0.1
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.capacity

    def spend(self) -> bool:
        """Take one retry; False when none is left."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def earn(self) -> None:
        """Note a success."""
        self.left = min(self.capacity, self.left + self.earned_per_success)


def retry(
    *,
    attempts: int = 3,
    first_delay_s: float = 0.1,
    budget: RetryBudget | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = random.random,
) -> Layer:
    """Run a handler up to ``attempts`` times while it raises errors with ``retryable`` set.

    The pause before attempt n + 1 is ``first_delay_s * 2**(n - 1)`` seconds, times one half to one
    (``jitter``). A Rejection, an error that is not marked, and cancellation pass through at once; so does a
    PostponedError, for the node itself takes that call up again, as often as it must.

    Raises:
        ValueError: fewer than one attempt.
    """
    if attempts < 1:
        raise ValueError(f"at least one attempt is needed, received {attempts}")
    shared = budget or RetryBudget()

    def layer(handler: Handler) -> Handler:
        async def retried(call: JobCall) -> bytes:
            for attempt in range(1, attempts):
                try:
                    output = await handler(call)
                except Exception as exc:
                    if not _is_retryable(exc) or not shared.spend():
                        raise
                    delay_s = first_delay_s * 2 ** (attempt - 1) * (1 + jitter()) / 2
                    _log.warning(
                        "handler_retried",
                        service_id=call.key.service_id,
                        call_id=call.key.call_id,
                        attempt=attempt,
                        delay_s=delay_s,
                        exc_info=exc,
                    )
                else:
                    shared.earn()
                    return output
                await sleep(delay_s)
            return await handler(call)

        return retried

    return layer


def _is_retryable(exc: Exception) -> bool:
    """Every error tree of this project marks its classes with ``retryable``; others are not retried."""
    return bool(getattr(exc, "retryable", False)) and not isinstance(exc, Rejection | PostponedError)
