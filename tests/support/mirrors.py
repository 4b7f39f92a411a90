"""A mirror on loopback for tests, as a program in a sandbox would meet it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from sandbox.egress.connection import ConnectionBounds
from sandbox.egress.ledger import MirrorBounds
from sandbox.egress.mirror import Mirror, MirrorSession
from sandbox.egress.registry import Registry, RegistryKind

__all__ = ["ask", "exchange", "mirrored", "registry_at", "status_of"]

ANSWER_TIMEOUT_S = 10.0


def registry_at(url: str, kind: RegistryKind = RegistryKind.GO, **fields: object) -> Registry:
    """Return a registry that is named by its kind."""
    return Registry(name=kind.value, kind=kind, base_url=url, **fields)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def mirrored(
    *registries: Registry | Callable[[int], Registry],
    bounds: MirrorBounds | None = None,
    connections: ConnectionBounds | None = None,
    kind: RegistryKind | None = None,
) -> AsyncIterator[MirrorSession]:
    """Yield a session that listens on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        made = [each if isinstance(each, Registry) else each(port) for each in registries]
        async with Mirror(made, bounds, connections, port=port) as mirror:
            session = await mirror.session(kind or made[0].kind)
            task = asyncio.create_task(session.serve(listener))
            try:
                yield session
                assert not task.done(), "the mirror fell over"
            finally:
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()


async def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes, and return everything that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            with contextlib.suppress(ConnectionResetError):
                return await reader.read()
            return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def status_of(answered: bytes) -> int:
    """Return the status of an answer."""
    return int(answered.split(b" ")[1])


async def ask(
    port: int, target: str, *headers: str, method: str = "GET", host: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Ask for one target; return status, headers with lower-case names, and the body."""
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host or f'127.0.0.1:{port}'}",
        "Connection: close",
        *headers,
    ]
    answered = await exchange(port, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    head, _, body = answered.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    named = {
        name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)
    }
    if named.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    return int(status.split()[1]), named, body


def _unchunked(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return out
        out, body = out + rest[:length], rest[length + 2 :]
    raise AssertionError("the answer was cut short")
