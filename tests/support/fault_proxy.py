"""A JSON-RPC proxy for HTTP and WebSocket that misbehaves on demand: the road between a node and its chain.

Invariant: without a fault every message passes unchanged; with one, exactly what its field says goes wrong.

::

    async with FaultProxy(chain.http_url) as proxy:
        client = RpcClient(proxy.ws_url)
        proxy.faults = Faults(delay_s=0.2)
        proxy.drop_connections()
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import WSMsgType, web

__all__ = ["FaultProxy", "Faults", "Json"]

Json = dict[str, object]

_REFUSED_STATUS = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong now. Replace ``FaultProxy.faults`` as a whole to change it."""

    http_status: int | None = None
    """Answer every HTTP request with this status (429, 500 ...) and do not forward it."""
    http_failures: int | None = None
    """How many requests ``http_status`` spoils before it stops; None means all."""
    retry_after: str | None = None
    """The ``Retry-After`` header that goes with ``http_status``: seconds, or an HTTP date."""
    delay_s: float = 0.0
    """Wait this long before each answer."""
    swallow: bool = False
    """Half-open: take requests and connections, forward and answer nothing, close nothing."""
    refuse_connections: bool = False
    """Refuse WebSocket handshakes (with a 503), and drop HTTP connections without an answer."""
    lose_replies_to: frozenset[str] = frozenset()
    """Methods that are forwarded but never answered: HTTP connections drop, WebSockets stay silent."""
    errors: Mapping[str, Json] = field(default_factory=dict)
    """The JSON-RPC ``error`` to answer for a method instead of forwarding it."""
    stale_blocks: int = 0
    """How many blocks ``eth_blockNumber``, ``latest`` blocks and new heads lag behind."""
    hide_log: Callable[[Json], bool] | None = None
    """Drop the logs for which this holds from ``eth_getLogs`` and log subscriptions."""
    double_logs: bool = False
    """Give every log twice."""
    hide_pushes: bool = False
    """Swallow every subscription message; answers still pass."""
    double_pushes: bool = False
    """Send every subscription message twice."""
    garbage: bytes | None = None
    """Answer everything with these bytes."""
    max_log_range: int | None = None
    """Refuse ``eth_getLogs`` over more blocks than this."""
    log_range_error: Json = field(
        default_factory=lambda: {"code": -32005, "message": "query returned more than 10000 results"}
    )
    """The error that ``max_log_range`` answers."""


class FaultProxy:
    """Listens on a free loopback port and forwards to one end point.

    Args:
        target: the end point's ``http://`` URL; its WebSocket must be on the same port.

    Attributes:
        faults: what goes wrong now.
        counts: requests received, by method.
        requests: every request received, in order.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.faults = Faults()
        self.counts: Counter[str] = Counter()
        self.requests: list[Json] = []
        self.connections = 0
        self.port = 0
        self._stack = AsyncExitStack()
        self._transports: set[asyncio.BaseTransport] = set()
        self._sockets: set[web.WebSocketResponse] = set()
        self._http: aiohttp.ClientSession
        self._spoiled = 0
        self._released = asyncio.Event()

    @property
    def http_url(self) -> str:
        """Where HTTP clients connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where WebSocket clients connect."""
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self.drop_connections()
        await self._stack.aclose()

    def drop_connections(self) -> None:
        """Cut every open WebSocket at once, without a closing handshake."""
        for transport in list(self._transports):
            transport.abort()  # type: ignore[attr-defined]  # every transport of a server has it

    async def push(self, message: Json) -> None:
        """Send a message of our own to every WebSocket client."""
        for socket in list(self._sockets):
            await socket.send_str(json.dumps(message))

    # --- HTTP ---

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_socket(request)
        body = await request.read()
        message = json.loads(body)
        self._note(message)
        faults = self.faults
        if faults.swallow:
            await self._released.wait()
        if faults.refuse_connections:
            return self._cut(request)
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        if self._takes_http_failure():
            headers = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            return web.Response(
                status=faults.http_status or _REFUSED_STATUS, headers=headers, text="injected"
            )
        if faults.garbage is not None:
            return web.Response(body=faults.garbage, content_type="application/json")
        answer = await self._exchange(message)
        if answer is None:
            return self._cut(request)
        return web.json_response(answer)

    def _takes_http_failure(self) -> bool:
        if self.faults.http_status is None:
            return False
        if self.faults.http_failures is not None and self._spoiled >= self.faults.http_failures:
            return False
        self._spoiled += 1
        return True

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        """Drop the connection without an answer."""
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _exchange(self, message: object) -> object | None:
        """Answer a request or a batch through HTTP; None when the answer is lost."""
        answers: list[Json] = []
        is_lost = False
        for entry in _entries(message):
            refusal = self._refusal(entry)
            if refusal is not None:
                answers.append({"jsonrpc": "2.0", "id": entry.get("id"), "error": refusal})
                continue
            async with self._http.post(self._target, json=entry) as response:
                answer: Json = await response.json(content_type=None)
            is_lost = is_lost or str(entry.get("method")) in self.faults.lose_replies_to
            answers.append(await self._alter(entry, answer))
        if is_lost:
            return None
        return answers if isinstance(message, list) else answers[0]

    # --- WebSocket ---

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        if self.faults.refuse_connections:
            return web.Response(status=_REFUSED_STATUS, text="injected")
        client = web.WebSocketResponse(max_msg_size=0, autoping=False, compress=False)
        await client.prepare(request)
        self.connections += 1
        assert request.transport is not None
        transport = request.transport
        self._transports.add(transport)
        self._sockets.add(client)
        url = self._target.replace("http", "ws", 1)
        try:
            async with self._http.ws_connect(url, max_msg_size=0) as upstream:
                pending: dict[object, Json] = {}
                async with asyncio.TaskGroup() as group:
                    downstream = group.create_task(self._pump_down(upstream, client, pending))
                    await self._pump_up(client, upstream, pending)
                    downstream.cancel()
        except* ConnectionError:
            pass
        finally:
            self._transports.discard(transport)
            self._sockets.discard(client)
        return client

    async def _pump_up(
        self,
        client: web.WebSocketResponse,
        upstream: aiohttp.ClientWebSocketResponse,
        pending: dict[object, Json],
    ) -> None:
        async for frame in client:
            if frame.type is WSMsgType.PING and not self.faults.swallow:
                await client.pong(frame.data)
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            message = json.loads(frame.data)
            self._note(message)
            if self.faults.swallow:
                continue
            if self.faults.garbage is not None:
                await client.send_str(self.faults.garbage.decode(errors="replace"))
                continue
            await self._forward(message, client, upstream, pending)

    async def _forward(
        self,
        message: object,
        client: web.WebSocketResponse,
        upstream: aiohttp.ClientWebSocketResponse,
        pending: dict[object, Json],
    ) -> None:
        for entry in _entries(message):
            refusal = self._refusal(entry)
            if refusal is None:
                pending[entry.get("id")] = entry
                # One by one: a batch may be answered as single messages, and its parts fail alone.
                await upstream.send_str(json.dumps(entry))
            else:
                await self._deliver(client, {"jsonrpc": "2.0", "id": entry.get("id"), "error": refusal})

    async def _pump_down(
        self,
        upstream: aiohttp.ClientWebSocketResponse,
        client: web.WebSocketResponse,
        pending: dict[object, Json],
    ) -> None:
        async for frame in upstream:
            if frame.type is not WSMsgType.TEXT or self.faults.swallow:
                continue
            message: Json = json.loads(frame.data)
            if message.get("method") == "eth_subscription":
                await self._push_down(client, message)
                continue
            request = pending.pop(message.get("id"), {})
            if str(request.get("method")) not in self.faults.lose_replies_to:
                await self._deliver(client, await self._alter(request, message))
        await client.close()

    async def _push_down(self, client: web.WebSocketResponse, message: Json) -> None:
        params = message["params"]
        assert isinstance(params, dict)
        result = params["result"]
        is_log = isinstance(result, dict) and "topics" in result
        if self.faults.hide_pushes:
            return
        if is_log and self.faults.hide_log is not None and self.faults.hide_log(result):
            return
        if self.faults.stale_blocks and isinstance(result, dict) and "parentHash" in result:
            params["result"] = await self._older(result)
        copies = 2 if self.faults.double_pushes or (is_log and self.faults.double_logs) else 1
        for _ in range(copies):
            await self._deliver(client, message)

    async def _deliver(self, client: web.WebSocketResponse, message: Json) -> None:
        if self.faults.delay_s:
            await asyncio.sleep(self.faults.delay_s)
        await client.send_str(json.dumps(message))

    # --- what both share ---

    def _note(self, message: object) -> None:
        for entry in _entries(message):
            self.requests.append(entry)
            self.counts[str(entry.get("method"))] += 1

    def _refusal(self, request: Json) -> Json | None:
        """The error to answer instead of forwarding, if any."""
        method = str(request.get("method"))
        if method in self.faults.errors:
            return self.faults.errors[method]
        if method == "eth_getLogs" and self.faults.max_log_range is not None:
            params = request.get("params")
            query = params[0] if isinstance(params, list) and params else {}
            first, last = str(query.get("fromBlock")), str(query.get("toBlock"))
            is_range = first.startswith("0x") and last.startswith("0x")
            if is_range and int(last, 16) - int(first, 16) + 1 > self.faults.max_log_range:
                return self.faults.log_range_error
        return None

    async def _alter(self, request: Json, answer: Json) -> Json:
        """Change an answer as the faults say."""
        method, result = request.get("method"), answer.get("result")
        if method == "eth_getLogs" and isinstance(result, list):
            logs = [log for log in result if not (self.faults.hide_log and self.faults.hide_log(log))]
            if self.faults.double_logs:
                logs = [log for log in logs for _ in range(2)]
            return answer | {"result": logs}
        if not self.faults.stale_blocks:
            return answer
        if method == "eth_blockNumber" and isinstance(result, str):
            return answer | {"result": hex(max(0, int(result, 16) - self.faults.stale_blocks))}
        params = request.get("params")
        asks_latest = isinstance(params, list) and params[:1] == ["latest"]
        if method == "eth_getBlockByNumber" and asks_latest and isinstance(result, dict):
            return answer | {"result": await self._older(result)}
        return answer

    async def _older(self, block: Json) -> object:
        """The block that lies ``stale_blocks`` below this one."""
        number = max(0, int(str(block["number"]), 16) - self.faults.stale_blocks)
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": [hex(number), False]}
        async with self._http.post(self._target, json=body) as response:
            answer: Json = await response.json(content_type=None)
        return answer["result"]


def _entries(message: object) -> list[Json]:
    """The requests of a message: several when it is a batch."""
    entries = message if isinstance(message, list) else [message]
    return [entry for entry in entries if isinstance(entry, dict)]
