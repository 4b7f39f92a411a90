"""What one WebSocket connection is subscribed to (``eth_subscribe``).

Invariant: a client that does not read is cut off, never waited for and never buffered without bound.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence

from blueprint.chain.devchain.errors import METHOD_NOT_FOUND, JsonRpcError
from blueprint.chain.devchain.formats import data, header_json, log_json
from blueprint.chain.devchain.ledger import ChainEvent, EventKind
from blueprint.chain.devchain.logs import LogFilter
from blueprint.chain.devchain.params import Params

__all__ = ["Session"]

_MAX_SUBSCRIPTIONS = 1_000
_MAX_UNSENT = 100_000


class Session:
    """The subscriptions of one connection, and the messages that wait to be written to it."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, tuple[str, LogFilter]] = {}
        self.outbox: asyncio.Queue[str | None] = asyncio.Queue(maxsize=_MAX_UNSENT)
        """Messages in order; None asks the writer to close the connection."""
        self.is_overflowing = False

    def subscribe(self, arguments: Sequence[object]) -> str:
        """Start a subscription; returns its id."""
        params = Params(arguments)
        kind = params.required(0)
        if kind not in ("newHeads", "logs", "newPendingTransactions", "syncing"):
            raise JsonRpcError(METHOD_NOT_FOUND, f"no {str(kind)[:64]!r} subscription in eth namespace")
        if len(self._subscriptions) >= _MAX_SUBSCRIPTIONS:
            raise JsonRpcError(METHOD_NOT_FOUND, f"at most {_MAX_SUBSCRIPTIONS} subscriptions a connection")
        wanted = params.log_filter(1) if kind == "logs" else LogFilter()
        subscription_id = "0x" + secrets.token_hex(16)
        self._subscriptions[subscription_id] = (str(kind), wanted)
        return subscription_id

    def unsubscribe(self, arguments: Sequence[object]) -> bool:
        """End a subscription; False when there is none with this id."""
        return self._subscriptions.pop(str(Params(arguments).required(0)), None) is not None

    def put(self, message: str) -> None:
        """Queue a message; the connection is given up when its client is too far behind."""
        if self.outbox.full():
            self.is_overflowing = True
            self.outbox.get_nowait()
            self.outbox.put_nowait(None)
        elif not self.is_overflowing:
            self.outbox.put_nowait(message)

    def observe(self, events: Sequence[ChainEvent]) -> None:
        """Queue what the subscriptions want to hear about these events."""
        for event in events:
            for subscription_id, (kind, wanted) in list(self._subscriptions.items()):
                for result in _results(kind, wanted, event):
                    self.put(_notification(subscription_id, result))


def _results(kind: str, wanted: LogFilter, event: ChainEvent) -> list[object]:
    if event.kind is EventKind.TRANSACTION_POOLED:
        is_wanted = kind == "newPendingTransactions" and event.transaction_hash is not None
        return [data(event.transaction_hash or b"")] if is_wanted else []
    if event.block is None:
        return []
    if kind == "newHeads":
        # A restored head is announced like a new one: the only hint that blocks are gone.
        return [] if event.kind is EventKind.BLOCK_UNDONE else [header_json(event.block.header)]
    if kind != "logs" or event.kind is EventKind.HEAD_RESTORED:
        return []
    is_removed = event.kind is EventKind.BLOCK_UNDONE
    return [log_json(log, is_removed=is_removed) for log in event.block.logs if wanted.matches(log)]


def _notification(subscription_id: str, result: object) -> str:
    params: Mapping[str, object] = {"subscription": subscription_id, "result": result}
    return json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})
