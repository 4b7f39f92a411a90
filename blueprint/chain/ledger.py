"""What the submitter is given to work with: durable memory and the operator's key.

Invariant: both ports are as narrow as the submitter's need, so that a fake of each fits on a page.
"""

from collections.abc import Sequence
from typing import Protocol

from blueprint.chain.signer import SignedTransaction
from blueprint.types import Address, CallOutcome, ReadyResult, SentTransaction

__all__ = ["Ledger", "TransactionSigner"]


class Ledger(Protocol):
    """What the submitter needs of durable memory. ``blueprint.store.journal.Journal`` is the real one."""

    def ready(self, limit: int, up_to_block: int) -> Sequence[ReadyResult]:
        """Outputs that wait to be sent, the oldest first, of calls in blocks up to ``up_to_block``."""

    def unconfirmed(self, from_nonce: int) -> Sequence[SentTransaction]:
        """Recorded transactions from ``from_nonce`` on, and earlier ones with calls in SENT."""

    def record_sent(self, transaction: SentTransaction, results: Sequence[ReadyResult] | None) -> bool:
        """Record a transaction before it is sent; False when an output is no longer the one to send."""

    def record_outcomes(self, outcomes: Sequence[CallOutcome]) -> None:
        """Take outputs that did not land back to READY, or close their calls."""


class TransactionSigner(Protocol):
    """The operator's key. ``blueprint.chain.signer.Signer`` is the real one."""

    @property
    def address(self) -> Address:
        """The account."""

    def sign_transaction(
        self,
        *,
        chain_id: int,
        nonce: int,
        to: Address | None,
        data: bytes,
        gas: int,
        max_fee_wei: int,
        max_priority_fee_wei: int,
        value_wei: int = 0,
    ) -> SignedTransaction:
        """Return the signed EIP-1559 transaction and its hash."""
