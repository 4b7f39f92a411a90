"""A gateway's time at work: it serves while its stage runs.

Invariant: the listener is closed when the gateway has ended, and a failure of it is ours, not the program's.
"""

import socket

from sandbox.backends.backend import Gateway
from sandbox.errors import SystemFailureError

__all__ = ["serve_gateway"]


async def serve_gateway(gateway: Gateway, listener: socket.socket) -> None:
    """Let a gateway serve until it is cancelled.

    Raises:
        SystemFailureError: it failed.
    """
    with listener:
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            await gateway.serve(listener)
        except OSError as exc:
            raise SystemFailureError(f"the gateway {gateway.name} failed: {exc}") from exc
