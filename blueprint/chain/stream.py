"""JSON-RPC over a connection that stays open, and is opened again whenever it breaks.

Invariant: an answer goes to the exchange that asked for its id and to no other, and every exchange ends: with
its answers, with an ``RpcError`` when the connection breaks, or at its time limit.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from blueprint.chain.answer import Answer, decode_message, read_error, silence_error, unattributed_error
from blueprint.chain.connection import Connection
from blueprint.chain.endpoint import Endpoint
from blueprint.errors import RpcError

__all__ = ["StreamTransport"]

_FIRST_DELAY_S = 0.05
_MAX_DELAY_S = 2.0
_SUBSCRIBE_ID = 0
_SUBSCRIBE = f'{{"jsonrpc":"2.0","id":{_SUBSCRIBE_ID},"method":"eth_subscribe","params":["newHeads"]}}'

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Exchange:
    """One message that was sent, and the answers that came so far."""

    missing: set[int]
    done: asyncio.Future[None]
    answers: dict[int, Answer] = field(default_factory=dict)

    def finish(self, error: RpcError | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class StreamTransport:
    """Keeps one connection with a ``newHeads`` subscription, and many exchanges in flight on it.

    Args:
        endpoint: for messages.
        open_: opens a connection, or raises ``RpcError``.
        timeout_s: the limit of one exchange, waiting for a connection included.
        jitter: returns a number from 0 to 1, which spreads the reconnects of many nodes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        open_: Callable[[], Awaitable[Connection]],
        timeout_s: float,
        jitter: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._open = open_
        self._timeout_s = timeout_s
        self._jitter = jitter
        self._attempt: asyncio.Future[Connection] | None = None
        self._pending: dict[int, _Exchange] = {}
        self._received = 0
        self._heads = 0
        self._head_changed = asyncio.Event()
        # What each waiting task has seen, so that no task takes a hint away from another.
        self._seen: weakref.WeakKeyDictionary[asyncio.Task[object], int] = weakref.WeakKeyDictionary()

    async def run(self) -> None:
        """Connect, read until the connection breaks, and again, with growing pauses after failures."""
        delay_s = _FIRST_DELAY_S
        while True:
            attempt = self._next_attempt()
            try:
                connection = await self._open()
            except RpcError as exc:
                _log.warning("rpc_connect_failed", endpoint=self._endpoint.shown, cause=str(exc))
                attempt.set_exception(exc)
                attempt.exception()  # retrieved here, because perhaps nobody waits
                self._attempt = None
            else:
                received = self._received
                attempt.set_result(connection)
                try:
                    await self._serve(connection)
                except RpcError as exc:
                    _log.warning("rpc_disconnected", endpoint=self._endpoint.shown, cause=str(exc))
                    self._attempt = None
                    self._fail_all(exc)
                finally:
                    await connection.aclose()
                if self._received > received:
                    delay_s = _FIRST_DELAY_S
            await asyncio.sleep(delay_s * (0.5 + self._jitter() / 2))
            delay_s = min(delay_s * 2, _MAX_DELAY_S)

    async def exchange(self, ids: Sequence[int], body: str) -> Mapping[int, Answer]:
        """Send one message; see ``Transport.exchange``. Cancelling it forgets the answers."""
        exchange = _Exchange(missing=set(ids), done=asyncio.get_running_loop().create_future())
        connection: Connection | None = None
        received = self._received
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connected()
                received = self._received
                for key in ids:
                    self._pending[key] = exchange
                await connection.send(body)
                await exchange.done
        except TimeoutError as exc:
            if connection is not None and self._received == received:
                # Nothing at all came since: half-open. The reader sees the abort and connects again.
                connection.abort()
            raise silence_error(self._endpoint, self._timeout_s) from exc
        finally:
            for key in ids:
                self._pending.pop(key, None)
            # A connection that broke while we were sending has failed the future as well; mark it as seen.
            if exchange.done.done() and not exchange.done.cancelled():
                exchange.done.exception()
        return exchange.answers

    async def wait_head(self, timeout_s: float) -> bool:
        """Return True at the next head, or at once if one came since the calling task last asked."""
        task = asyncio.current_task()
        assert task is not None
        seen = self._seen.get(task, 0)
        if seen == self._heads:
            changed = self._head_changed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await changed.wait()
        self._seen[task] = self._heads
        return self._heads != seen

    async def aclose(self) -> None:
        """Fail what still waits; the connection is closed by ``run`` when that is cancelled."""
        self._fail_all(RpcError(f"the client of {self._endpoint.shown} was closed"))

    def _next_attempt(self) -> "asyncio.Future[Connection]":
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.get_running_loop().create_future()
        return self._attempt

    async def _connected(self) -> Connection:
        attempt = self._attempt
        if attempt is None:
            attempt = self._next_attempt()
        try:
            return await asyncio.shield(attempt)
        except RpcError as exc:
            # Many may wait for one attempt; each gets an error of its own.
            raise RpcError(str(exc), code=exc.code, retry_after_s=exc.retry_after_s) from exc

    async def _serve(self, connection: Connection) -> NoReturn:
        await connection.send(_SUBSCRIBE)
        _log.info("rpc_connected", endpoint=self._endpoint.shown)
        self._hint_head()
        while True:
            content = await connection.receive()
            self._received += 1
            message = decode_message(self._endpoint, content)
            if isinstance(message, dict):
                self._take(message)
            else:
                self._take_batch(message)

    def _take_batch(self, answers: list[Answer]) -> None:
        touched = {exchange for answer in answers if (exchange := self._take(answer)) is not None}
        for exchange in touched:
            exchange.finish()  # a batch comes as a whole: what is not in it will not come

    def _take(self, answer: Answer) -> _Exchange | None:
        key = answer.get("id")
        if type(key) is int and (exchange := self._pending.pop(key, None)) is not None:
            exchange.answers[key] = answer
            exchange.missing.discard(key)
            if not exchange.missing:
                exchange.finish()
            return exchange
        if answer.get("method") == "eth_subscription":
            self._hint_head()
        elif key == _SUBSCRIBE_ID and "error" in answer:
            _log.info("head_subscription_refused", cause=read_error(answer["error"])[1])
        elif key is None and "error" in answer:
            self._take_anonymous_error(answer)
        return None

    def _take_anonymous_error(self, answer: Answer) -> None:
        """Give an error without an id to the only exchange it can belong to, if there is just one."""
        exchanges = set(self._pending.values())
        if len(exchanges) == 1:
            exchanges.pop().finish(unattributed_error(self._endpoint, [answer]))

    def _hint_head(self) -> None:
        self._heads += 1
        self._head_changed.set()
        self._head_changed = asyncio.Event()

    def _fail_all(self, error: RpcError) -> None:
        for exchange in set(self._pending.values()):
            exchange.finish(RpcError(str(error), code=error.code, retry_after_s=error.retry_after_s))
