"""A layer that writes one canonical line for each call, when it ends.

Invariant: the line holds sizes, times and names, never inputs or outputs.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from blueprint.errors import PostponedError, Rejection
from blueprint.job import Handler, Layer
from blueprint.types import JobCall

__all__ = ["call_log"]

_log = structlog.get_logger(__name__)


def call_log(clock: Callable[[], float] = time.monotonic) -> Layer:
    """Log ``call_handled`` with the outcome (answered, rejected, postponed, failed, cancelled) and the time.

    It stands outermost among the layers given to ``Router.bind``, so that it sees what they raise.
    """

    def layer(handler: Handler) -> Handler:
        async def logged(call: JobCall) -> bytes:
            began, outcome, output_bytes = clock(), "failed", 0
            try:
                output = await handler(call)
                outcome, output_bytes = "answered", len(output)
            except Rejection:
                outcome = "rejected"
                raise
            except PostponedError:
                outcome = "postponed"
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            else:
                return output
            finally:
                _log.info(
                    "call_handled",
                    service_id=call.key.service_id,
                    call_id=call.key.call_id,
                    job_index=call.job_index,
                    outcome=outcome,
                    inputs_bytes=len(call.inputs),
                    output_bytes=output_bytes,
                    wall_time_ms=round((clock() - began) * 1000, 3),
                )

        return logged

    return layer
