"""Filters that a client polls: ``eth_newFilter`` and its kin.

Invariant: a poll answers each change once, in order; an undone block yields its logs with ``removed``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from blueprint.chain.devchain.errors import SERVER_ERROR, JsonRpcError
from blueprint.chain.devchain.formats import data, log_json, quantity
from blueprint.chain.devchain.ledger import ChainEvent, EventKind, Ledger
from blueprint.chain.devchain.logs import LogFilter
from blueprint.chain.devchain.params import BlockId, Params
from blueprint.chain.devchain.queries import Method, select_logs

__all__ = ["Filters"]

_MAX_FILTERS = 1_000
_MAX_CHANGES = 100_000


@dataclass(slots=True, kw_only=True)
class _Filter:
    kind: str
    wanted: LogFilter | None = None
    where: bytes | tuple[BlockId, BlockId] | None = None
    changes: list[object] = field(default_factory=list)


class Filters:
    """The filters of all clients; the oldest goes when there are too many."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._filters: dict[int, _Filter] = {}
        self._next_id = 1

    def methods(self) -> Mapping[str, Method]:
        """The methods by name."""
        return {
            "eth_getFilterChanges": self._take_changes,
            "eth_getFilterLogs": self._all_logs,
            "eth_newBlockFilter": lambda _: self._install(_Filter(kind="block")),
            "eth_newFilter": self._new_log_filter,
            "eth_newPendingTransactionFilter": lambda _: self._install(_Filter(kind="transaction")),
            "eth_uninstallFilter": lambda params: self._filters.pop(params.quantity(0), None) is not None,
        }

    def observe(self, events: list[ChainEvent]) -> None:
        """Note what happened for the next poll of each filter."""
        for event in events:
            for entry in self._filters.values():
                entry.changes.extend(_changes(entry, event))
                del entry.changes[: max(0, len(entry.changes) - _MAX_CHANGES)]

    def _install(self, entry: _Filter) -> object:
        if len(self._filters) >= _MAX_FILTERS:
            del self._filters[next(iter(self._filters))]
        number, self._next_id = self._next_id, self._next_id + 1
        self._filters[number] = entry
        return quantity(number)

    def _new_log_filter(self, params: Params) -> object:
        return self._install(_Filter(kind="log", wanted=params.log_filter(0), where=params.block_range(0)))

    def _find(self, params: Params) -> _Filter:
        entry = self._filters.get(params.quantity(0))
        if entry is None:
            raise JsonRpcError(SERVER_ERROR, "filter not found")
        return entry

    def _take_changes(self, params: Params) -> object:
        entry = self._find(params)
        changes, entry.changes = entry.changes, []
        return changes

    def _all_logs(self, params: Params) -> object:
        entry = self._find(params)
        if entry.wanted is None or entry.where is None:
            raise JsonRpcError(SERVER_ERROR, "filter not found")
        return [log_json(log) for log in select_logs(self._ledger, entry.wanted, entry.where)]


def _changes(entry: _Filter, event: ChainEvent) -> list[object]:
    if entry.kind == "transaction":
        return [] if event.transaction_hash is None else [data(event.transaction_hash)]
    if event.block is None or event.kind is EventKind.HEAD_RESTORED:
        return []
    if entry.kind == "block":
        return [data(event.block.hash)] if event.kind is EventKind.BLOCK_ADDED else []
    wanted = entry.wanted or LogFilter()
    is_removed = event.kind is EventKind.BLOCK_UNDONE
    return [log_json(log, is_removed=is_removed) for log in event.block.logs if wanted.matches(log)]
