"""Composes and signs the three kinds of transaction that the submitter sends.

Invariant: a transaction with call data goes to the job contract and moves no value; one without goes to the
operator's own account and only uses up a nonce.
"""

from blueprint.chain.fees import Fees
from blueprint.chain.ledger import TransactionSigner
from blueprint.chain.precheck import Checked
from blueprint.types import Address, CallKey, SentTransaction

__all__ = ["Composer"]


class Composer:
    """Signs for one operator, one contract, one chain."""

    def __init__(self, signer: TransactionSigner, *, chain_id: int, contract: Address) -> None:
        self._signer = signer
        self._chain_id = chain_id
        self._contract = contract

    def answer(self, nonce: int, checked: Checked, fees: Fees) -> SentTransaction:
        """Return the transaction that brings a batch to the contract."""
        batch = checked.batch
        return self._sign(nonce, batch.data, checked.gas, fees=fees, keys=batch.keys)

    def raised(self, old: SentTransaction, fees: Fees) -> SentTransaction:
        """Return the same transaction with other fees."""
        return self._sign(old.nonce, old.data, old.gas, fees=fees, keys=old.keys)

    def filler(self, nonce: int, gas: int, fees: Fees) -> SentTransaction:
        """Return a transaction that does nothing."""
        return self._sign(nonce, b"", gas, fees=fees, keys=())

    def _sign(
        self, nonce: int, data: bytes, gas: int, *, fees: Fees, keys: tuple[CallKey, ...]
    ) -> SentTransaction:
        signed = self._signer.sign_transaction(
            chain_id=self._chain_id,
            nonce=nonce,
            to=self._contract if data else self._signer.address,
            data=data,
            gas=gas,
            max_fee_wei=fees.max_fee_wei,
            max_priority_fee_wei=fees.max_priority_fee_wei,
        )
        return SentTransaction(
            nonce=nonce,
            hash=signed.hash,
            raw=signed.raw,
            keys=keys,
            data=data,
            gas=gas,
            max_fee_wei=fees.max_fee_wei,
            max_priority_fee_wei=fees.max_priority_fee_wei,
        )
