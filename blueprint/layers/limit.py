"""Layers that bound what a handler may take: calls at a time, and time for a call."""

import asyncio

from blueprint.errors import JobTimeoutError
from blueprint.job import Handler, Layer
from blueprint.types import JobCall

__all__ = ["concurrency_limit", "time_limit"]


def concurrency_limit(calls: int) -> Layer:
    """Let at most this many calls into the handlers that the returned layer wraps; the others wait.

    Raises:
        ValueError: less than one.
    """
    if calls < 1:
        raise ValueError(f"at least one call must be let in, received {calls}")
    slots = asyncio.Semaphore(calls)

    def layer(handler: Handler) -> Handler:
        async def limited(call: JobCall) -> bytes:
            async with slots:
                return await handler(call)

        return limited

    return layer


def time_limit(timeout_s: float) -> Layer:
    """Cancel a handler that takes longer than this many seconds, and raise JobTimeoutError.

    Raises:
        ValueError: not more than zero.
    """
    if not timeout_s > 0:
        raise ValueError(f"a time limit must be over 0 s, received {timeout_s}")

    def layer(handler: Handler) -> Handler:
        async def timed(call: JobCall) -> bytes:
            timer = asyncio.timeout(timeout_s)
            try:
                async with timer:
                    return await handler(call)
            except TimeoutError as exc:
                if not timer.expired():
                    raise  # the handler's own
                raise JobTimeoutError(f"the job did not finish within {timeout_s:g} s") from exc

        return timed

    return layer
