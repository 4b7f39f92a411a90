"""The test verbs: mining, time, snapshots (named as in Hardhat and anvil).

Invariant: they exist only here, on a chain whose money is worth nothing.
"""

from collections.abc import Mapping

from blueprint.chain.devchain.errors import INVALID_PARAMS, JsonRpcError
from blueprint.chain.devchain.formats import quantity
from blueprint.chain.devchain.ledger import Ledger
from blueprint.chain.devchain.params import Params
from blueprint.chain.devchain.queries import Method

__all__ = ["Verbs"]

_MAX_BLOCKS = 10_000


class Verbs:
    """The test verbs over one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def methods(self) -> Mapping[str, Method]:
        """The methods by name, with the names that other development chains give them."""
        return {
            "anvil_dropTransaction": self._drop,
            "anvil_getAutomine": lambda _: self._ledger.is_automining,
            "anvil_getIntervalMining": lambda _: self._ledger.block_time_s,
            "anvil_mine": self._mine_many,
            "anvil_setNextBlockBaseFeePerGas": self._set_base_fee,
            "evm_increaseTime": lambda params: self._ledger.increase_time(params.count(0)),
            "evm_mine": self._mine,
            "evm_revert": lambda params: self._ledger.revert(params.count(0)),
            "evm_setAutomine": self._set_automine,
            "evm_setIntervalMining": self._set_interval,
            "evm_setNextBlockTimestamp": self._set_timestamp,
            "evm_snapshot": lambda _: quantity(self._ledger.snapshot()),
            "hardhat_dropTransaction": self._drop,
            "hardhat_getAutomine": lambda _: self._ledger.is_automining,
            "hardhat_mine": self._mine_many,
            "hardhat_setNextBlockBaseFeePerGas": self._set_base_fee,
        }

    def _mine(self, params: Params) -> object:
        """``evm_mine``: one block; or at a timestamp; or ``{"blocks": n, "timestamp": t}``."""
        options = params.raw(0)
        if isinstance(options, Mapping):
            inner = Params([options.get("blocks"), options.get("timestamp")])
            self._mine_blocks(inner.count(0, default=1), None if inner.raw(1) is None else inner.count(1))
        else:
            self._mine_blocks(1, None if options is None else params.count(0))
        return "0x0"

    def _mine_many(self, params: Params) -> object:
        """``anvil_mine``: how many blocks, and how many seconds lie between them."""
        self._mine_blocks(params.count(0, default=1), None, params.count(1, default=0))
        return None

    def _mine_blocks(self, blocks: int, timestamp: int | None, interval_s: int = 0) -> None:
        if blocks > _MAX_BLOCKS:
            raise JsonRpcError(INVALID_PARAMS, f"at most {_MAX_BLOCKS} blocks at a time, asked for {blocks}")
        if timestamp is not None:
            self._ledger.set_next_timestamp(timestamp)
        for index in range(blocks):
            if interval_s and index:
                self._ledger.set_next_timestamp(int(self._ledger.head.header.timestamp) + interval_s)
            self._ledger.mine()

    def _drop(self, params: Params) -> object:
        transaction_hash = params.hash(0)
        return params.raw(0) if self._ledger.drop_transaction(transaction_hash) else None

    def _set_automine(self, params: Params) -> object:
        self._ledger.is_automining = params.flag(0)
        if self._ledger.is_automining:
            self._ledger.block_time_s = None
        return None

    def _set_interval(self, params: Params) -> object:
        """Seconds between blocks, as anvil counts them; 0 stops mining by the clock."""
        seconds = params.seconds(0)
        self._ledger.block_time_s = seconds or None
        self._ledger.is_automining = False
        return None

    def _set_timestamp(self, params: Params) -> object:
        self._ledger.set_next_timestamp(params.count(0))
        return None

    def _set_base_fee(self, params: Params) -> object:
        self._ledger.set_next_base_fee(params.count(0))
        return None
