"""Serves an engine as JSON-RPC over HTTP and WebSocket on one port of the loopback interface.

Invariant: only programs of this machine, and web pages that it served itself, are answered.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from blueprint.chain.devchain.dispatch import answer
from blueprint.chain.devchain.engine import Engine
from blueprint.chain.devchain.ledger import ChainEvent
from blueprint.chain.devchain.session import Session

__all__ = ["RpcServer"]

_LOOPBACK = "127.0.0.1"
_EXTENSION_SCHEMES = frozenset({"chrome-extension", "moz-extension", "safari-web-extension"})
_HEARTBEAT_S = 30.0


class RpcServer:
    """The listening socket and the open connections."""

    def __init__(self, engine: Engine, *, max_request_bytes: int) -> None:
        self._engine = engine
        self._max_request_bytes = max_request_bytes
        self._sessions: dict[web.WebSocketResponse, Session] = {}
        application = web.Application(client_max_size=max_request_bytes)
        application.router.add_route("*", "/", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self.port = 0
        """The port in use; 0 before the start."""

    async def start(self, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, _LOOPBACK, port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        self._engine.observer = self._observe

    async def stop(self) -> None:
        """Close every connection and the socket."""
        for socket in list(self._sessions):
            await socket.close(code=WSCloseCode.GOING_AWAY)
        await self._runner.cleanup()

    def _observe(self, events: Sequence[ChainEvent]) -> None:
        for session in self._sessions.values():
            session.observe(events)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        refusal = _refuse(request)
        if refusal is not None:
            return refusal
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_socket(request)
        allowed = _cors_headers(request)
        if request.method == "OPTIONS":
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=allowed)
        if request.method != "POST":
            text = "This is a JSON-RPC end point: send POST requests, or connect by WebSocket.\n"
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, text=text, headers={"Allow": "POST"})
        reply = await answer(self._engine, await request.read(), None)
        if reply is None:
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=allowed)
        return web.Response(text=reply, content_type="application/json", headers=allowed)

    async def _serve_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            max_msg_size=self._max_request_bytes, heartbeat=_HEARTBEAT_S, compress=False
        )
        await socket.prepare(request)
        session = self._sessions[socket] = Session()
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(_write(socket, session))
                await self._read(socket, session)
                writer.cancel()
        finally:
            del self._sessions[socket]
        return socket

    async def _read(self, socket: web.WebSocketResponse, session: Session) -> None:
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                reply = await answer(self._engine, message.data, session)
                if reply is not None:
                    session.put(reply)


async def _write(socket: web.WebSocketResponse, session: Session) -> None:
    """Send what the session has queued, until the client is gone or too far behind."""
    while (message := await session.outbox.get()) is not None:
        try:
            await socket.send_str(message)
        except ConnectionError:
            return
    await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too many unread messages")


def _refuse(request: web.Request) -> web.Response | None:
    """Refuse what comes from a web page of somewhere else.

    SECURITY: a page can make a name of its own resolve to 127.0.0.1 (DNS rebinding) and then talk to this
    port; the Host header still shows that name. test_page_of_another_site_is_refused
    """
    if not _is_loopback(urlsplit(f"//{request.host}").hostname):
        text = f"Host {request.host!r} is not this machine: use 127.0.0.1 or localhost.\n"
        return web.Response(status=HTTPStatus.FORBIDDEN, text=text)
    origin = request.headers.get("Origin")
    if origin is None or _is_trusted_origin(origin):
        return None
    text = f"Origin {origin!r} may not use this end point: only pages of this machine may.\n"
    return web.Response(status=HTTPStatus.FORBIDDEN, text=text)


def _is_trusted_origin(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme in _EXTENSION_SCHEMES or _is_loopback(parts.hostname)


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cors_headers(request: web.Request) -> dict[str, str]:
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "Content-Type",
        "Vary": "Origin",
    }
