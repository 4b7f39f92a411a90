"""Runs the methods of the embedded chain, one at a time, in a thread of its own.

Invariant: only that thread touches the ledger, and every change of the chain reaches the filters and the
observer exactly once, in order. The event loop of the server never waits for the virtual machine.
"""

import asyncio
import difflib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from blueprint.chain.devaccounts import DevAccount
from blueprint.chain.devchain.errors import INTERNAL_ERROR, METHOD_NOT_FOUND, JsonRpcError
from blueprint.chain.devchain.fees import Fees
from blueprint.chain.devchain.filters import Filters
from blueprint.chain.devchain.ledger import ChainEvent, Ledger
from blueprint.chain.devchain.params import Params
from blueprint.chain.devchain.queries import Method, Queries
from blueprint.chain.devchain.sending import Sending
from blueprint.chain.devchain.verbs import Verbs

__all__ = ["Engine"]

_log = logging.getLogger(__name__)


class Engine:
    """A ledger with its methods behind one worker thread."""

    def __init__(
        self,
        *,
        chain_id: int,
        accounts: Sequence[DevAccount],
        balance_wei: int,
        gas_limit: int,
        block_time_s: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devchain-evm")
        self._ledger = Ledger(
            chain_id=chain_id,
            accounts=accounts,
            balance_wei=balance_wei,
            gas_limit=gas_limit,
            block_time_s=block_time_s,
            clock=clock,
        )
        self._filters = Filters(self._ledger)
        fees = Fees(self._ledger)
        self._methods: Mapping[str, Method] = {
            **Queries(self._ledger).methods(),
            **fees.methods(),
            **Sending(self._ledger, fees, accounts).methods(),
            **Verbs(self._ledger).methods(),
            **self._filters.methods(),
        }
        self.interval_changed = asyncio.Event()
        """Set when ``block_time_s`` has changed; whoever waits for it clears it."""
        self._last_block_time_s = block_time_s
        self.observer: Callable[[Sequence[ChainEvent]], None] = lambda _: None
        """Called on the event loop with what happened to the chain."""

    @property
    def block_time_s(self) -> float | None:
        """Seconds between blocks that are mined by the clock; None when they are not."""
        return self._ledger.block_time_s

    @property
    def method_names(self) -> frozenset[str]:
        """The methods that ``call`` knows."""
        return frozenset(self._methods)

    async def call(self, method: str, params: Sequence[object]) -> object:
        """Run a method; returns the JSON value of ``result``.

        Raises:
            JsonRpcError: whatever went wrong, as the error answer to give.
        """
        function = self._methods.get(method)
        if function is None:
            raise JsonRpcError(METHOD_NOT_FOUND, self._unknown(method))
        return await self._run(lambda: function(Params(params)))

    async def mine(self) -> None:
        """Seal one block, as the clock does it."""
        await self._run(self._ledger.mine)

    def close(self) -> None:
        """End the worker thread once what it is doing is done."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], object]) -> object:
        loop = asyncio.get_running_loop()

        def job() -> object:
            try:
                return _guard(work)
            finally:
                events = self._ledger.drain_events()
                if events:
                    self._filters.observe(events)
                    # From here, not from the awaiting task: its cancellation must not lose what happened.
                    loop.call_soon_threadsafe(self._notify, events)

        result = await loop.run_in_executor(self._thread, job)
        if self._last_block_time_s != self._ledger.block_time_s:
            self._last_block_time_s = self._ledger.block_time_s
            self.interval_changed.set()
        return result

    def _notify(self, events: Sequence[ChainEvent]) -> None:
        self.observer(events)

    def _unknown(self, method: str) -> str:
        close = difflib.get_close_matches(method, self._methods, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"the method {method[:64]} does not exist/is not available{hint}"


def _guard(work: Callable[[], object]) -> object:
    """Answer any failure of a method, so that one call cannot end the server."""
    try:
        return work()
    except JsonRpcError:
        raise
    except Exception as exc:
        _log.exception("a method of the embedded chain failed")
        raise JsonRpcError(INTERNAL_ERROR, f"internal error: {type(exc).__name__}: {exc}") from exc
