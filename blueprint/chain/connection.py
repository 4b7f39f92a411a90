"""Message connections that stay open: WebSocket and Unix socket.

Invariant: every failure of the library below, while opening, sending or receiving, is raised as ``RpcError``.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from blueprint.chain.answer import status_error
from blueprint.chain.endpoint import Endpoint
from blueprint.chain.transport import MAX_MESSAGE_BYTES
from blueprint.errors import RpcError

__all__ = ["Connection", "IpcConnection", "WebSocketConnection", "open_connection"]

_CLOSE_TIMEOUT_S = 1.0
# Linux only; elsewhere an acknowledgement may be delayed by 40 ms, which costs time and nothing else.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Connection(Protocol):
    """One open connection that carries whole messages."""

    async def send(self, message: str) -> None:
        """Send one message, or raise ``RpcError``."""

    async def receive(self) -> bytes:
        """Return the next message, or raise ``RpcError`` when the connection is gone."""

    def abort(self) -> None:
        """Drop the connection at once, so that ``receive`` raises."""

    async def aclose(self) -> None:
        """Close politely, within a second."""


async def open_connection(endpoint: Endpoint, *, timeout_s: float) -> Connection:
    """Return an open connection to a WebSocket or IPC end point.

    Raises:
        RpcError: it cannot be opened in time; the message names the cause and the fix.
    """
    try:
        async with asyncio.timeout(timeout_s):
            if endpoint.kind == "ipc":
                return await IpcConnection.open(endpoint)
            return await WebSocketConnection.open(endpoint, timeout_s=timeout_s)
    except TimeoutError as exc:
        raise RpcError(
            f"cannot reach {endpoint.shown}: no connection within {timeout_s:g} s; check the URL"
        ) from exc


class WebSocketConnection:
    """A WebSocket. Pings find out within two time limits that the other side is gone (half-open)."""

    def __init__(self, endpoint: Endpoint, websocket: ClientConnection) -> None:
        self._endpoint = endpoint
        self._websocket = websocket
        raw = websocket.transport.get_extra_info("socket")
        is_tcp = raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6}
        self._tcp_socket: socket.socket | None = raw if is_tcp else None
        if self._tcp_socket is not None:
            self._tcp_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._acknowledge()

    @classmethod
    async def open(cls, endpoint: Endpoint, *, timeout_s: float) -> "WebSocketConnection":
        """Connect and shake hands, or raise ``RpcError``."""
        try:
            with _as_rpc_error(endpoint, "cannot reach"):
                websocket = await connect(
                    endpoint.url,
                    max_size=MAX_MESSAGE_BYTES,
                    compression=None,
                    open_timeout=None,
                    ping_interval=timeout_s,
                    ping_timeout=timeout_s,
                    close_timeout=_CLOSE_TIMEOUT_S,
                    proxy=None,
                )
        except RpcError as exc:
            if isinstance(exc.__cause__, InvalidStatus):
                answer = exc.__cause__.response
                raise status_error(
                    endpoint, answer.status_code, answer.headers.get("retry-after"), bytes(answer.body or b"")
                ) from exc.__cause__
            raise
        return cls(endpoint, websocket)

    async def send(self, message: str) -> None:
        """Send one text frame."""
        with _as_rpc_error(self._endpoint, "lost the connection to"):
            await self._websocket.send(message)

    async def receive(self) -> bytes:
        """Return the next frame's bytes."""
        with _as_rpc_error(self._endpoint, "lost the connection to"):
            message = await self._websocket.recv(decode=False)
        self._acknowledge()
        return message

    def abort(self) -> None:
        """Reset the TCP connection."""
        self._websocket.transport.abort()

    async def aclose(self) -> None:
        """Shake hands for closing; after a second the connection is dropped."""
        await self._websocket.close()

    def _acknowledge(self) -> None:
        # A server that writes without TCP_NODELAY waits for the acknowledgement of its last packet before it
        # sends the next; the kernel forgets the option after each read (tcp(7), TCP_QUICKACK).
        if self._tcp_socket is not None and _QUICK_ACK is not None:
            with contextlib.suppress(OSError):
                self._tcp_socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)


class IpcConnection:
    """A Unix socket that carries one JSON document a line."""

    def __init__(
        self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._endpoint = endpoint
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, endpoint: Endpoint) -> "IpcConnection":
        """Connect, or raise ``RpcError``."""
        with _as_rpc_error(endpoint, "cannot reach"):
            reader, writer = await asyncio.open_unix_connection(endpoint.url, limit=MAX_MESSAGE_BYTES)
        return cls(endpoint, reader, writer)

    async def send(self, message: str) -> None:
        """Send one line."""
        with _as_rpc_error(self._endpoint, "lost the connection to"):
            self._writer.write(message.encode() + b"\n")
            await self._writer.drain()

    async def receive(self) -> bytes:
        """Return the next line."""
        try:
            with _as_rpc_error(self._endpoint, "lost the connection to"):
                line = await self._reader.readline()
        except ValueError as exc:
            raise RpcError(
                f"{self._endpoint.shown} answered more than {MAX_MESSAGE_BYTES} bytes: response too large"
            ) from exc
        if not line.endswith(b"\n"):
            raise RpcError(f"lost the connection to {self._endpoint.shown}: it was closed by the other side")
        return line

    def abort(self) -> None:
        """Close the socket at once."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close the socket."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()


@contextlib.contextmanager
def _as_rpc_error(endpoint: Endpoint, what: str) -> Iterator[None]:
    try:
        yield
    except (WebSocketException, OSError, EOFError) as exc:
        cause = endpoint.redact(str(exc)) or type(exc).__name__
        raise RpcError(
            f"{what} {endpoint.shown}: {cause}; check the URL and that the end point is running"
        ) from exc
