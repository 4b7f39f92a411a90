"""The operator's transactions between signing and the chain, by nonce.

Invariant: from the chain's own count up to ``next_nonce`` every nonce is held by one recorded transaction,
or is reported as a gap.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blueprint.types import SentTransaction

__all__ = ["InFlight", "Pipeline"]


@dataclass(slots=True)
class InFlight:
    """One transaction on its way."""

    transaction: SentTransaction
    signed_at: float
    """When this variant was signed, by the monotonic clock."""
    pushed_at: float | None = None
    """When it was last handed to the end point; None means now is the time."""
    must_replace: bool = False
    """It is stale or was refused for good: another must take its nonce."""
    must_raise: bool = False
    """The end point wants a higher fee."""
    refusals: int = 0
    """How often it was refused for an unknown reason."""
    spent_at: int | None = None
    """The number of a block by which its nonce was used, by this transaction or by another."""


class Pipeline:
    """What is in flight, and which nonce comes next."""

    def __init__(self) -> None:
        self._by_nonce: dict[int, InFlight] = {}
        self.next_nonce = 0

    def __len__(self) -> int:
        return len(self._by_nonce)

    @property
    def unmined(self) -> list[InFlight]:
        """Transactions whose nonce is still free on the chain, by nonce."""
        return [entry for _, entry in sorted(self._by_nonce.items()) if entry.spent_at is None]

    def reload(self, recorded: Iterable[SentTransaction], count: int, *, now: float) -> None:
        """Take over what the ledger holds, keeping what is known of transactions that have not changed.

        Args:
            recorded: the unconfirmed transactions.
            count: how many nonces the chain has seen used.
            now: the monotonic clock.
        """
        before, self._by_nonce = self._by_nonce, {}
        self.next_nonce = count
        for transaction in recorded:
            if transaction.nonce < count and not transaction.keys:
                continue
            old = before.get(transaction.nonce)
            entry = InFlight(transaction, signed_at=now)
            if old is not None and old.transaction.hash == transaction.hash:
                entry.signed_at = old.signed_at
            entry.must_replace = transaction.is_stale
            self._by_nonce[transaction.nonce] = entry
            self.next_nonce = max(self.next_nonce, transaction.nonce + 1)

    def put(self, entry: InFlight) -> None:
        """Add a transaction, or replace the one with its nonce."""
        nonce = entry.transaction.nonce
        self._by_nonce[nonce] = entry
        self.next_nonce = max(self.next_nonce, nonce + 1)

    def gaps(self, count: int) -> list[int]:
        """Nonces from ``count`` on that nothing holds, though later ones are held."""
        return [nonce for nonce in range(count, self.next_nonce) if nonce not in self._by_nonce]

    def mark_spent(self, count: int, block_number: int) -> None:
        """Note that the nonces below ``count`` are used as of this block."""
        self.next_nonce = max(self.next_nonce, count)
        for nonce, entry in self._by_nonce.items():
            if nonce < count and entry.spent_at is None:
                entry.spent_at = block_number

    def pop_settled(self, cursor: int) -> Iterator[SentTransaction]:
        """Forget transactions whose fate has been read from the chain, and yield them."""
        for nonce, entry in list(self._by_nonce.items()):
            if entry.spent_at is not None and entry.spent_at <= cursor:
                del self._by_nonce[nonce]
                yield entry.transaction
