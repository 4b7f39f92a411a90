"""A lean JSON-RPC client over WebSocket, IPC or HTTP, which reconnects by itself.

Invariant: every await ends within the client's time limit, and a request is sent at most once: whoever needs
a retry decides on it, because sending a transaction twice is not the same as asking twice for a balance.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from typing_extensions import override

from blueprint.chain.answer import read_result
from blueprint.chain.connection import open_connection
from blueprint.chain.endpoint import Endpoint, parse_endpoint
from blueprint.chain.stream import StreamTransport
from blueprint.chain.transport import HttpTransport, Transport, is_silence
from blueprint.chain.wire import JsonValue
from blueprint.errors import ChainError, RpcError

__all__ = ["JsonValue", "Rpc", "RpcClient", "is_silence"]

_DEFAULT_TIMEOUT_S = 10.0


class Rpc(Protocol):
    """What the chain's components need of an end point. ``RpcClient`` is the real one."""

    async def call(self, method: str, *params: JsonValue) -> JsonValue:
        """Return the result of one call.

        Raises:
            RpcError: the end point failed or answered an error.
            RevertedError: a contract refused, and the error says so.
        """

    async def batch(self, calls: Sequence[tuple[str, Sequence[JsonValue]]]) -> list[JsonValue | ChainError]:
        """Return one result, or one error as a value, for each call and in its order.

        Raises:
            RpcError: the batch as a whole was not answered.
        """

    async def wait_head(self, timeout_s: float) -> bool:
        """Return True at a hint that there may be a new block, or False after ``timeout_s``; never raises."""


class RpcClient:
    """JSON-RPC client of one end point; an async context manager, inside of which it keeps its connection.

    Entering does not connect yet: a call waits for the connection, and fails with its cause when that fails.

    Args:
        url: ``ws(s)://``, ``http(s)://``, ``ipc:///path`` or a path ending in ``.ipc``. Its credentials are
            never shown.
        timeout_s: the limit of each call in seconds.
        jitter: returns a number from 0 to 1, which spreads reconnects.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self, url: str, *, timeout_s: float = _DEFAULT_TIMEOUT_S, jitter: Callable[[], float] = random.random
    ) -> None:
        self._endpoint = parse_endpoint(url)
        self._ids = itertools.count(1)
        self._transport = _make_transport(self._endpoint, timeout_s=timeout_s, jitter=jitter)
        self._tasks = asyncio.TaskGroup()
        self._runner: asyncio.Task[None] | None = None

    @override
    def __repr__(self) -> str:
        return f"RpcClient({self._endpoint.shown})"

    @property
    def shown_url(self) -> str:
        """Scheme, host and port of the end point, without credentials."""
        return self._endpoint.shown

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._runner = self._tasks.create_task(self._transport.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            self._runner.cancel()
            self._runner = None
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._transport.aclose()

    async def call(self, method: str, *params: JsonValue) -> JsonValue:
        """Return the result of one call; see ``Rpc.call``."""
        self._require_open()
        key = next(self._ids)
        answers = await self._transport.exchange((key,), json.dumps(_request(key, method, params)))
        result = read_result(self._endpoint, method, answers.get(key))
        if isinstance(result, ChainError):
            raise result
        return result

    async def batch(self, calls: Sequence[tuple[str, Sequence[JsonValue]]]) -> list[JsonValue | ChainError]:
        """Return a result or an error for each call; see ``Rpc.batch``."""
        self._require_open()
        if not calls:
            return []
        requests = [(next(self._ids), method, params) for method, params in calls]
        body = json.dumps([_request(*request) for request in requests])
        answers = await self._transport.exchange([key for key, _, _ in requests], body)
        return [read_result(self._endpoint, method, answers.get(key)) for key, method, _ in requests]

    async def wait_head(self, timeout_s: float) -> bool:
        """Return True at a hint of a new block, or False after ``timeout_s``; see ``Rpc.wait_head``."""
        return await self._transport.wait_head(timeout_s)

    def _require_open(self) -> None:
        if self._runner is None:
            raise RpcError("the RPC client is not open; use it as 'async with RpcClient(url) as rpc'")


def _request(key: int, method: str, params: Sequence[JsonValue]) -> dict[str, JsonValue]:
    return {"jsonrpc": "2.0", "id": key, "method": method, "params": list(params)}


def _make_transport(endpoint: Endpoint, *, timeout_s: float, jitter: Callable[[], float]) -> Transport:
    if endpoint.kind == "http":
        return HttpTransport(endpoint, timeout_s=timeout_s)
    return StreamTransport(
        endpoint,
        open_=lambda: open_connection(endpoint, timeout_s=timeout_s),
        timeout_s=timeout_s,
        jitter=jitter,
    )
