"""A policy's proxy on loopback for tests, as a program in a sandbox would meet it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from sandbox.egress.policy import EgressBounds, EgressPolicy
from sandbox.egress.proxy import EgressProxy, Resolve, resolve

__all__ = ["proxied", "resolving_to"]


def resolving_to(*addresses: str) -> Resolve:
    """Return a resolver that knows one answer to every name."""

    async def answer(_destination: object) -> Sequence[str]:
        return addresses

    return answer


@contextlib.asynccontextmanager
async def proxied(
    *allow: str, resolving: Resolve = resolve, bounds: EgressBounds | None = None
) -> AsyncIterator[EgressProxy]:
    """Yield the proxy of a policy that allows these patterns; it listens on a free port of loopback."""
    policy = EgressPolicy(name="test", allow=allow, bounds=bounds or EgressBounds())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = EgressProxy(policy, resolving, port=listener.getsockname()[1])
        task = asyncio.create_task(proxy.serve(listener))
        try:
            yield proxy
            assert not task.done(), "the proxy fell over"
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
