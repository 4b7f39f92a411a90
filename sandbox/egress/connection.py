"""One HTTP/1.1 connection that a program inside has made to us, and the loop that accepts them.

Invariant: whatever comes in is bounded in size and in time before it is looked at; a peer that breaks the
protocol, stalls or goes away costs its own connection and nothing else.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import h11

__all__ = ["PIECE_BYTES", "ConnectionBounds", "HttpConnection", "serve_connections"]

PIECE_BYTES = 64 * 1024
SPOKEN = (b"1.0", b"1.1")
Headers = Sequence[tuple[bytes, bytes]]
_REASONS = {
    400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 413: b"Too Large",
    421: b"Misdirected Request", 429: b"Too Many Requests", 502: b"Bad Gateway", 504: b"Gateway Timeout",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBounds:
    """What the peer may take of us."""

    connections: int = 32
    """At once; more wait in the kernel's queue."""
    head_bytes: int = 16 * 1024
    head_s: float = 30.0
    """From the end of the last answer to the end of the next head."""
    stall_s: float = 60.0
    """How long a peer may leave what we send unread."""


class HttpConnection:
    """The server's side of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bounds: ConnectionBounds
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.bounds = bounds
        self.protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=bounds.head_bytes)

    async def next_request(self) -> h11.Request | None:
        """Wait for the head of the next request; None when there will be none.

        A head that cannot be understood, is too large or too slow is answered, where that can still be done.
        """
        protocol = self.protocol
        if protocol.our_state is h11.DONE and protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
        elif protocol.our_state is not h11.IDLE:
            return None
        try:
            async with asyncio.timeout(self.bounds.head_s):
                event = await self.next_event()
        except TimeoutError:
            return None
        except h11.RemoteProtocolError as exc:
            if protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self.refuse(exc.error_status_hint, "the request is malformed")
            return None
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in SPOKEN:
            await self.refuse(505, "HTTP/1.1 is spoken here")
            return None
        return event

    async def next_event(self) -> h11.Event | type[h11.PAUSED] | type[h11.NEED_DATA]:
        """Return the next part of the request, `h11.ConnectionClosed` at the end.

        Raises:
            h11.RemoteProtocolError: the peer breaks the protocol.
            ConnectionError: the connection is gone.
        """
        while (event := self.protocol.next_event()) is h11.NEED_DATA:
            self.protocol.receive_data(await self.reader.read(PIECE_BYTES))
        return event

    async def send(self, event: h11.Event) -> None:
        """Send a part of the answer, and wait until the peer has taken most of it.

        Raises:
            TimeoutError: the peer reads nothing.
            ConnectionError: it is gone.
        """
        data = self.protocol.send(event)
        if data:
            await self.write(data)

    async def write(self, data: bytes) -> None:
        """Send bytes as they are; raises as `send` does."""
        self.writer.write(data)
        async with asyncio.timeout(self.bounds.stall_s):
            await self.writer.drain()

    async def refuse(self, status: int, why: str) -> None:
        """Answer with an error, and close: what follows is not looked at."""
        body = f"{why}\n".encode()
        headers = [
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Connection", b"close"),
        ]
        reason = _REASONS.get(status, b"Error")
        await self.send(h11.Response(status_code=status, headers=headers, reason=reason))
        if self.protocol.our_state is h11.SEND_BODY:
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())


async def serve_connections(
    listener: socket.socket,
    handle: Callable[[HttpConnection], Awaitable[None]],
    bounds: ConnectionBounds,
) -> None:
    """Accept connections until cancelled; then all of them are closed.

    Args:
        listener: a listening socket; it stays the caller's.
        handle: serves one connection to its end.
        bounds: what the peers may take.
    """
    listener.settimeout(0)
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(bounds.connections)
    waiting: set[socket.socket] = set()

    async def serve(accepted: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(sock=accepted)
                waiting.discard(accepted)
                await _serve_one(HttpConnection(reader, writer, bounds), handle)
        finally:
            places.release()

    try:
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                accepted, _ = await loop.sock_accept(listener)
                waiting.add(accepted)
                group.create_task(serve(accepted))
    finally:
        for accepted in waiting:  # accepted, and cancelled before anything could begin
            accepted.close()


async def _serve_one(connection: HttpConnection, handle: Callable[[HttpConnection], Awaitable[None]]) -> None:
    try:
        await handle(connection)
    except (OSError, TimeoutError, h11.ProtocolError):
        connection.writer.transport.abort()
    finally:
        connection.writer.close()
        with contextlib.suppress(OSError):
            await connection.writer.wait_closed()
