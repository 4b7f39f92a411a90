"""The embedded chain itself: its blocks, what waits for the next one, and the clock.

Invariant: ``blocks[n].number == n`` and each block names its predecessor's hash; every change of the
canonical chain is recorded as an event, undone blocks before new ones.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from eth.abc import BlockHeaderAPI, SignedTransactionAPI
from eth.exceptions import UnrecognizedTransactionType
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]  # the package carries no types

from blueprint.chain.devaccounts import DevAccount
from blueprint.chain.devchain.errors import INVALID_PARAMS, SERVER_ERROR, JsonRpcError
from blueprint.chain.devchain.evm import Evm, SealedBlock, base_fee_wei
from blueprint.chain.devchain.pool import PooledTransaction, TransactionPool
from blueprint.types import Hash

__all__ = ["ChainEvent", "EventKind", "Ledger", "TransactionPlace"]

_BLOB_TRANSACTION_TYPE = 3


class EventKind(Enum):
    """What happened to the chain."""

    BLOCK_ADDED = "block_added"
    BLOCK_UNDONE = "block_undone"
    HEAD_RESTORED = "head_restored"  # after blocks were undone: this older block is the newest again
    TRANSACTION_POOLED = "transaction_pooled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEvent:
    """A change that subscribers hear of; exactly one of the two values is set."""

    kind: EventKind
    block: SealedBlock | None = None
    transaction_hash: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionPlace:
    """Where a mined transaction stands."""

    block: SealedBlock
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    height: int
    pool: TransactionPool
    clock_offset_s: int


class Ledger:
    """Blocks, pool and clock. Not thread-safe: the embedded chain calls it from one thread."""

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
        self._clock = clock
        self._clock_offset_s = 0
        self.evm = Evm(
            chain_id=chain_id,
            accounts=accounts,
            balance_wei=balance_wei,
            gas_limit=gas_limit,
            timestamp=int(clock()),
        )
        self.blocks: list[SealedBlock] = [self.evm.genesis]
        self.pool = TransactionPool()
        self.is_automining = block_time_s is None
        self.block_time_s = block_time_s
        """Seconds between blocks that are mined by the clock; None when they are not."""
        self._numbers: dict[bytes, int] = {self.evm.genesis.hash: 0}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._snapshots: dict[int, _Snapshot] = {}
        self._next_snapshot = 1
        self._next_timestamp: int | None = None
        self._next_base_fee_wei: int | None = None
        self._events: list[ChainEvent] = []

    @property
    def chain_id(self) -> int:
        """The chain's id (EIP-155)."""
        return self.evm.chain_id

    @property
    def head(self) -> SealedBlock:
        """The newest block."""
        return self.blocks[-1]

    def block_by_hash(self, block_hash: bytes) -> SealedBlock | None:
        """The canonical block with this hash."""
        number = self._numbers.get(block_hash)
        return None if number is None else self.blocks[number]

    def find_transaction(self, transaction_hash: bytes) -> TransactionPlace | None:
        """Where a mined transaction stands; None while it waits, or when it is unknown."""
        place = self._places.get(transaction_hash)
        return None if place is None else TransactionPlace(block=self.blocks[place[0]], index=place[1])

    def drain_events(self) -> list[ChainEvent]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # --- transactions ---

    def nonce(self, address: bytes) -> int:
        """The account's nonce on the newest block."""
        return self.evm.nonce(address, self.head.header)

    def pending_nonce(self, address: bytes) -> int:
        """The first nonce that neither the chain nor the pool has used."""
        return self.pool.next_nonce(address, self.nonce(address))

    def submit(self, raw: bytes) -> Hash:
        """Take a signed transaction into the pool, and mine a block with it when automining.

        Raises:
            JsonRpcError: malformed, or refused by the pool's rules.
        """
        transaction = self._decode(raw)
        if transaction.hash in self._places:
            raise JsonRpcError(SERVER_ERROR, "already known")
        pooled = PooledTransaction(
            transaction=transaction,
            sender=bytes(transaction.sender),
            nonce=int(transaction.nonce),
            hash=bytes(transaction.hash),
            size_bytes=len(raw),
        )
        self.pool.add(
            pooled,
            state_nonce=self.nonce(pooled.sender),
            balance_wei=self.evm.balance_wei(pooled.sender, self.head.header),
            gas_limit=int(self.head.header.gas_limit),
        )
        self._events.append(ChainEvent(kind=EventKind.TRANSACTION_POOLED, transaction_hash=pooled.hash))
        if self.is_automining:
            self._mine_until_idle()
        return Hash(pooled.hash)

    def drop_transaction(self, transaction_hash: bytes) -> bool:
        """Forget a waiting transaction; False when it does not wait."""
        pooled = self.pool.get(transaction_hash)
        if pooled is None:
            return False
        self.pool.drop(pooled)
        return True

    def _decode(self, raw: bytes) -> SignedTransactionAPI:
        if raw[:1] == bytes([_BLOB_TRANSACTION_TYPE]):
            raise JsonRpcError(INVALID_PARAMS, "blob transactions are not supported by the embedded chain")
        try:
            transaction = self.evm.decode(raw)
            transaction.validate()
            sender_is_known = bool(transaction.sender)
        except UnrecognizedTransactionType as exc:
            raise JsonRpcError(SERVER_ERROR, "transaction type not supported") from exc
        # IndexError is what py-evm makes of no bytes at all; ValueError of integers that are not canonical.
        except (RLPException, ValidationError, BadSignature, IndexError, ValueError) as exc:
            raise JsonRpcError(SERVER_ERROR, f"invalid transaction: {exc}") from exc
        chain_id = transaction.chain_id
        if not sender_is_known or chain_id is None:
            raise JsonRpcError(SERVER_ERROR, "only replay-protected (EIP-155) transactions allowed over RPC")
        if chain_id != self.chain_id:
            raise JsonRpcError(
                SERVER_ERROR, f"invalid chain id for signer: have {chain_id} want {self.chain_id}"
            )
        return transaction

    # --- blocks ---

    def mine(self) -> SealedBlock:
        """Seal one block with as many waiting transactions as fit; it may be empty."""
        header = self.next_header()
        self._consume_settings(int(header.timestamp))
        builder = self.evm.open_block(header)
        for pooled in self.pool.ready(base_fee_wei(header), builder.nonce):
            if pooled.transaction.gas > builder.gas_left:
                continue
            try:
                builder.add(pooled.transaction)
            except ValidationError:
                # It was payable when it came in and is not any more; geth drops it as well.
                self.pool.drop(pooled)
        block = builder.seal()
        self._append(block)
        self.pool.drop_used(self.nonce)
        return block

    def _mine_until_idle(self) -> None:
        """Automining: a block for what just came in, and further ones while some of it did not fit."""
        block = self.mine()
        while block.block.transactions and self._has_ready():
            block = self.mine()

    def _has_ready(self) -> bool:
        if not len(self.pool):
            return False
        ready = self.pool.ready(base_fee_wei(self.next_header()), self.nonce)
        return next(ready, None) is not None

    def next_header(self) -> BlockHeaderAPI:
        """The empty header of the block to come."""
        return self.evm.next_header(
            self.head.header, timestamp=self._peek_timestamp(), base_fee_wei=self._next_base_fee_wei
        )

    def _append(self, block: SealedBlock) -> None:
        self.evm.keep(block)
        self.blocks.append(block)
        self._numbers[block.hash] = block.number
        for index, transaction in enumerate(block.block.transactions):
            self._places[bytes(transaction.hash)] = (block.number, index)
        self._events.append(ChainEvent(kind=EventKind.BLOCK_ADDED, block=block))

    # --- clock ---

    def set_next_timestamp(self, timestamp: int) -> None:
        """Give the next block this timestamp (seconds); later ones go on from there."""
        newest = int(self.head.header.timestamp)
        if timestamp < newest:
            raise JsonRpcError(
                INVALID_PARAMS, f"timestamp {timestamp} is before that of the newest block, {newest}"
            )
        self._next_timestamp = timestamp

    def increase_time(self, seconds: int) -> int:
        """Move the chain's clock forward; returns the whole offset in seconds."""
        self._clock_offset_s += seconds
        return self._clock_offset_s

    def set_next_base_fee(self, fee_wei: int) -> None:
        """Give the next block this base fee per gas."""
        self._next_base_fee_wei = fee_wei

    def _peek_timestamp(self) -> int:
        if self._next_timestamp is not None:
            return self._next_timestamp
        return max(int(self._clock()) + self._clock_offset_s, int(self.head.header.timestamp))

    def _consume_settings(self, timestamp: int) -> None:
        """Forget what was set for one block; a timestamp that was set moves the clock for good."""
        if self._next_timestamp is not None:
            self._clock_offset_s = timestamp - int(self._clock())
            self._next_timestamp = None
        self._next_base_fee_wei = None

    # --- snapshots ---

    def snapshot(self) -> int:
        """Remember the present state; returns the snapshot's number."""
        number, self._next_snapshot = self._next_snapshot, self._next_snapshot + 1
        self._snapshots[number] = _Snapshot(
            height=self.head.number, pool=self.pool.copy(), clock_offset_s=self._clock_offset_s
        )
        return number

    def revert(self, number: int) -> bool:
        """Go back to a snapshot; it and all later ones are used up. False when there is none."""
        snapshot = self._snapshots.get(number)
        if snapshot is None:
            return False
        self._snapshots = {key: value for key, value in self._snapshots.items() if key < number}
        undone = self.blocks[snapshot.height + 1 :]
        del self.blocks[snapshot.height + 1 :]
        for block in reversed(undone):
            del self._numbers[block.hash]
            for transaction in block.block.transactions:
                del self._places[bytes(transaction.hash)]
            self._events.append(ChainEvent(kind=EventKind.BLOCK_UNDONE, block=block))
        if undone:
            self._events.append(ChainEvent(kind=EventKind.HEAD_RESTORED, block=self.head))
        self.pool = snapshot.pool
        self._clock_offset_s = snapshot.clock_offset_s
        self._next_timestamp = None
        self._next_base_fee_wei = None
        return True
