"""When a request to the cloud may be sent again, and how long to wait before.

Invariant: a request that may have been received is sent again only if doing it twice is doing it once.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from jobs.deploy.cloud.errors import (
    BusyError,
    CloudError,
    CloudInterruptedError,
    CloudServerError,
    CloudUnreachableError,
    RateLimitedError,
)

__all__ = ["Retrier", "RetryPolicy"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient the client is."""

    attempts: int = 5
    base_s: float = 0.5
    """Upper bound of the first wait; each further one doubles."""
    cap_s: float = 20.0
    budget_s: float = 90.0
    """All waits and attempts of one request together; a wait that would not fit is not begun."""


class Retrier:
    """Repeats what is safe to repeat, with full jitter.

    Args:
        policy: the bounds.
        clock: seconds, monotonic.
        sleep: waits for seconds.
        jitter: a number from 0 to 1.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def pause(self, seconds: float) -> None:
        """Wait by the same clock."""
        await self._sleep(seconds)

    async def run(self, attempt: Callable[[], Awaitable[T]], *, is_repeatable: bool) -> T:
        """Return what an attempt returns, or raise the error of the last one.

        Args:
            attempt: sends the request once.
            is_repeatable: whether doing it twice is doing it once.
        """
        began_s = self._clock()
        for count in range(1, self._policy.attempts + 1):
            try:
                return await attempt()
            except CloudError as error:
                wait_s = self._wait_s(error, count)
                is_late = self._clock() - began_s + wait_s > self._policy.budget_s
                if count == self._policy.attempts or is_late or not _may_repeat(error, is_repeatable):
                    raise
            await self._sleep(wait_s)
        raise AssertionError("unreachable: a policy has at least one attempt")

    def _wait_s(self, error: CloudError, count: int) -> float:
        asked_s: float = error.complaint.retry_after_s or 0.0
        drawn_s = self._jitter() * min(self._policy.cap_s, self._policy.base_s * float(1 << (count - 1)))
        return asked_s + drawn_s


def _may_repeat(error: CloudError, is_repeatable: bool) -> bool:  # noqa: FBT001 - one caller
    if isinstance(error, CloudUnreachableError | RateLimitedError | BusyError):
        return True  # the cloud has not begun it
    # SECURITY: a machine that is paid for is never ordered twice (test_an_order_is_sent_once).
    return is_repeatable and isinstance(error, CloudServerError | CloudInterruptedError)
