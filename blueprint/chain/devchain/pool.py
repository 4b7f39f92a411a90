"""Transactions that wait for a block, by sender and nonce, under the rules of geth's pool.

Invariant: at most one transaction waits for a sender's nonce, and none has a nonce that is already used.

Refusals are worded as geth words them, because clients tell them apart by their words.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from eth.abc import SignedTransactionAPI
from eth.vm.forks.prague.constants import STANDARD_TOKEN_COST, TOTAL_COST_FLOOR_PER_TOKEN

from blueprint.chain.devchain.errors import SERVER_ERROR, JsonRpcError

__all__ = ["PooledTransaction", "TransactionPool"]

_MAX_TRANSACTION_BYTES = 128 * 1024
_MAX_WAITING = 10_000
_REPLACEMENT_PERCENT = 10
_PLAIN_TRANSFER_GAS = 21_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledTransaction:
    """A decoded transaction that waits for its block."""

    transaction: SignedTransactionAPI = field(repr=False)
    sender: bytes
    nonce: int
    hash: bytes
    size_bytes: int

    def tip_wei(self, base_fee_wei: int) -> int:
        """What the transaction pays above the base fee per gas; negative when it cannot pay it."""
        fee_left = self.transaction.max_fee_per_gas - base_fee_wei
        return int(min(fee_left, self.transaction.max_priority_fee_per_gas))


class TransactionPool:
    """The waiting transactions of all senders."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, dict[int, PooledTransaction]] = {}
        self._by_hash: dict[bytes, PooledTransaction] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def __iter__(self) -> Iterator[PooledTransaction]:
        return iter(self._by_hash.values())

    def get(self, transaction_hash: bytes) -> PooledTransaction | None:
        """The waiting transaction with this hash."""
        return self._by_hash.get(transaction_hash)

    def copy(self) -> "TransactionPool":
        """A pool with the same transactions that can change on its own."""
        twin = TransactionPool()
        for pooled in self:
            twin._put(pooled)
        return twin

    def next_nonce(self, sender: bytes, state_nonce: int) -> int:
        """The first nonce from ``state_nonce`` on for which nothing waits."""
        queue = self._waiting.get(sender, {})
        return next(nonce for nonce in itertools.count(state_nonce) if nonce not in queue)

    def add(self, pooled: PooledTransaction, *, state_nonce: int, balance_wei: int, gas_limit: int) -> None:
        """Take a transaction in, or replace the one that waits for the same nonce.

        Raises:
            JsonRpcError: the transaction is refused; the pool is unchanged.
        """
        if pooled.hash in self._by_hash:
            raise _refusal("already known")
        _check(pooled, gas_limit)
        if pooled.nonce < state_nonce:
            raise _refusal(f"nonce too low: next nonce {state_nonce}, tx nonce {pooled.nonce}")
        transaction = pooled.transaction
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if balance_wei < cost:
            raise _refusal(
                f"insufficient funds for gas * price + value: balance {balance_wei}, tx cost {cost}, "
                f"overshot {cost - balance_wei}"
            )
        old = self._waiting.get(pooled.sender, {}).get(pooled.nonce)
        if old is not None and not _outbids(pooled, old):
            raise _refusal("replacement transaction underpriced")
        if old is None and len(self) >= _MAX_WAITING:
            raise _refusal("txpool is full")
        if old is not None:
            self.drop(old)
        self._put(pooled)

    def drop(self, pooled: PooledTransaction) -> None:
        """Forget a transaction that waits."""
        del self._by_hash[pooled.hash]
        queue = self._waiting[pooled.sender]
        del queue[pooled.nonce]
        if not queue:
            del self._waiting[pooled.sender]

    def drop_used(self, nonce_of: Callable[[bytes], int]) -> None:
        """Forget every transaction whose nonce the chain has passed."""
        for sender in list(self._waiting):
            state_nonce = nonce_of(sender)
            for pooled in list(self._waiting[sender].values()):
                if pooled.nonce < state_nonce:
                    self.drop(pooled)

    def ready(self, base_fee_wei: int, nonce_of: Callable[[bytes], int]) -> Iterator[PooledTransaction]:
        """Transactions for the next block: the best tip first, each sender's in the order of its nonces.

        Ask for the next one only after the last one was executed: ``nonce_of`` decides whether its sender
        goes on. A sender whose transaction was left out is passed over.
        """
        arrival = itertools.count()
        heap = [
            (-queue[nonce].tip_wei(base_fee_wei), next(arrival), queue[nonce])
            for sender, queue in self._waiting.items()
            if (nonce := nonce_of(sender)) in queue
        ]
        heapq.heapify(heap)
        while heap:
            negative_tip, _, pooled = heapq.heappop(heap)
            if negative_tip > 0:
                continue
            yield pooled
            following = self._waiting.get(pooled.sender, {}).get(pooled.nonce + 1)
            if following is not None and nonce_of(pooled.sender) == following.nonce:
                heapq.heappush(heap, (-following.tip_wei(base_fee_wei), next(arrival), following))

    def _put(self, pooled: PooledTransaction) -> None:
        self._by_hash[pooled.hash] = pooled
        self._waiting.setdefault(pooled.sender, {})[pooled.nonce] = pooled


def _check(pooled: PooledTransaction, gas_limit: int) -> None:
    """The checks that need no state."""
    transaction = pooled.transaction
    if pooled.size_bytes > _MAX_TRANSACTION_BYTES:
        raise _refusal(
            f"oversized data: transaction size {pooled.size_bytes}, limit {_MAX_TRANSACTION_BYTES}"
        )
    if transaction.gas > gas_limit:
        raise _refusal("exceeds block gas limit")
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise _refusal(
            "max priority fee per gas higher than max fee per gas: "
            f"maxPriorityFeePerGas: {transaction.max_priority_fee_per_gas}, "
            f"maxFeePerGas: {transaction.max_fee_per_gas}"
        )
    if transaction.gas < transaction.intrinsic_gas:
        raise _refusal(
            f"intrinsic gas too low: gas {transaction.gas}, minimum needed {transaction.intrinsic_gas}"
        )
    if transaction.gas < (floor := _calldata_floor_gas(transaction.data)):
        raise _refusal(
            f"insufficient gas for floor data gas cost: gas {transaction.gas}, minimum needed {floor}"
        )


def _calldata_floor_gas(data: bytes) -> int:
    """The least that a transaction with this calldata costs (EIP-7623)."""
    zeros = data.count(0)
    tokens = zeros + (len(data) - zeros) * STANDARD_TOKEN_COST
    return int(_PLAIN_TRANSFER_GAS + TOTAL_COST_FLOOR_PER_TOKEN * tokens)


def _outbids(new: PooledTransaction, old: PooledTransaction) -> bool:
    """Whether both fees rise by a tenth, as geth asks of a replacement."""

    def rises(after: int, before: int) -> bool:
        return after * 100 >= before * (100 + _REPLACEMENT_PERCENT) and after > before

    return rises(new.transaction.max_fee_per_gas, old.transaction.max_fee_per_gas) and rises(
        new.transaction.max_priority_fee_per_gas, old.transaction.max_priority_fee_per_gas
    )


def _refusal(message: str) -> JsonRpcError:
    return JsonRpcError(SERVER_ERROR, message)
