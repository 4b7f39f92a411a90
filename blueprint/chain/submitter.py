"""Brings recorded outputs on the chain: one writer, its own nonces, nothing sent that was not recorded.

Invariant: a transaction is in the ledger before the end point sees it, and a nonce is given up only when the
chain has used it. Whether an output landed is decided by its result log alone, which reaches the ledger by
another way; replies of the end point are hints.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from blueprint.chain.batch import pack
from blueprint.chain.composer import Composer
from blueprint.chain.fees import FeePolicy, Fees
from blueprint.chain.inflight import InFlight, Pipeline
from blueprint.chain.ledger import Ledger, TransactionSigner
from blueprint.chain.outlook import Outlook, read_outlook
from blueprint.chain.precheck import Checked, Precheck, Refused
from blueprint.chain.protocol import RevertClass
from blueprint.chain.refusals import Refusal, classify_refusal
from blueprint.chain.rpc import Rpc
from blueprint.chain.wire import parse_quantity, to_hex
from blueprint.errors import ChainError, RpcError
from blueprint.types import Address, CallKey, CallOutcome, CallState, SentTransaction

__all__ = ["Ledger", "Submitter", "SubmitterPolicy", "TransactionSigner"]

_log = structlog.get_logger()

_MAX_REFUSALS: Final = 3
_MAX_BACKOFF_S: Final = 300.0
_OUTLOOK_AGE_S: Final = 10.0
_MAX_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitterPolicy:
    """How the submitter behaves; times in seconds."""

    confirmations: int = 0
    """An output is sent when the block of its call has so many blocks above it. A reorganisation deeper than
    this can let an output land on another call of that number: choose more than the chain's usual depth."""
    max_in_flight: int = 16
    """Transactions on their way; go-ethereum keeps at least 16 of one account."""
    max_batch: int = 128
    """Outputs in one transaction; the gas limit of a block usually allows fewer."""
    bump_after_s: float = 30.0
    """A transaction that waits longer is replaced by one with a higher fee."""
    rebroadcast_after_s: float = 5.0
    """A transaction that waits longer is handed to the end point again."""
    tick_s: float = 0.5
    """The longest rest between two looks at what is to be done."""
    retry_s: float = 1.0
    """The first pause after a failure; it doubles with each in a row, up to five minutes for a call."""


class Submitter:
    """Sends what the ledger holds, until cancelled.

    Args:
        rpc: the end point.
        ledger: where outputs wait and transactions are recorded.
        signer: the operator's key.
        chain_id: as EIP-155 has it.
        contract: the job contract.
        policy: limits and times.
        fees: what the operator is willing to pay.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rpc: Rpc,
        *,
        ledger: Ledger,
        signer: TransactionSigner,
        chain_id: int,
        contract: Address,
        policy: SubmitterPolicy = SubmitterPolicy(),
        fees: FeePolicy = FeePolicy(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._ledger = ledger
        self._operator = signer.address
        self._composer = Composer(signer, chain_id=chain_id, contract=contract)
        self._policy = policy
        self._fees = fees
        self._clock = clock
        self._precheck = Precheck(rpc, contract=contract, operator=signer.address)
        self._pipeline = Pipeline()
        self._wake = asyncio.Event()
        self._outlook: Outlook | None = None
        self._cursor = -1
        self._looked_at = 0.0
        self._must_look = False
        self._in_doubt = True
        self._batch_limit = policy.max_batch
        self._attempts: dict[CallKey, int] = {}
        self._has_backlog = True
        self._is_sending = False

    def wake(self) -> None:
        """Say that an output may wait to be sent."""
        self._has_backlog = True
        self._wake.set()

    def advance(self, cursor: int, *, is_fork: bool = False) -> None:
        """Say that the ledger knows the chain up to block ``cursor``, and whether blocks were undone."""
        self._cursor = cursor
        # With nothing in flight there is nothing to settle, and looking would only delay the next output.
        self._must_look = self._must_look or len(self._pipeline) > 0
        self._in_doubt = self._in_doubt or is_fork
        self._wake.set()

    @property
    def in_flight(self) -> int:
        """How many transactions are on their way."""
        return len(self._pipeline)

    @property
    def is_idle(self) -> bool:
        """Nothing waits to be sent that could be sent now, and everything sent was handed over."""
        is_pushed = all(entry.pushed_at is not None for entry in self._pipeline.unmined)
        return is_pushed and not self._has_backlog and not self._is_sending

    async def run(self) -> None:
        """Work until cancelled; an end point that fails is asked again.

        Raises:
            JournalError: the ledger cannot be written.
        """
        failures = 0
        while True:
            try:
                await self.step()
                failures = 0
            except ChainError as exc:
                failures += 1
                _log.warning("submitting_failed", error=str(exc), attempt=failures)
                self._in_doubt = self._has_backlog = True
                self._is_sending = False
                await asyncio.sleep(self._backoff(failures, limit_s=10 * self._policy.tick_s))
                continue
            try:
                async with asyncio.timeout(self._policy.tick_s):
                    await self._wake.wait()
            except TimeoutError:
                self._must_look = self._must_look or len(self._pipeline) > 0

    async def step(self) -> None:
        """Do once what is to be done now: settle, repair, send.

        Raises:
            ChainError: the end point failed; what was recorded is sent by a later step.
        """
        self._wake.clear()
        outlook = self._outlook
        if outlook is None or self._in_doubt or self._clock() - self._looked_at > _OUTLOOK_AGE_S:
            outlook = await self._look()
            if self._in_doubt:
                self._resolve(outlook)
        # Sending comes first: looking costs a round trip that a waiting output need not pay.
        await self._send_ready(outlook)
        if self._must_look:
            outlook = await self._look()
        if not self._in_doubt:
            before = len(self._pipeline.unmined)
            self._settle(outlook)
            await self._repair(outlook)
            if self._has_backlog and len(self._pipeline.unmined) < before:
                self._wake.set()  # there is room again

    async def _look(self) -> Outlook:
        """Ask the chain where our nonces and the fees stand."""
        outlook = await read_outlook(self._rpc, self._operator)
        if self._outlook is not None and outlook.count < self._outlook.count:
            # Nonces came back: blocks were undone, or another end point answered.
            self._in_doubt = True
            self._wake.set()
        self._outlook = outlook
        self._looked_at = self._clock()
        self._must_look = False
        return outlook

    def _resolve(self, outlook: Outlook) -> None:
        """After a start, a fork or a surprise: believe the ledger and the chain, not what was remembered."""
        self._pipeline.reload(self._ledger.unconfirmed(outlook.count), outlook.count, now=self._clock())
        self._in_doubt = False

    def _settle(self, outlook: Outlook) -> None:
        """Let go of used nonces; what they carried without a result log waits to be sent again."""
        self._pipeline.mark_spent(outlook.count, outlook.block_number)
        unanswered = [
            CallOutcome(
                key=key,
                state=CallState.READY,
                reason="not_in_block",
                retry_after_s=self._pause(key),
                nonce=transaction.nonce,
            )
            for transaction in self._pipeline.pop_settled(self._cursor)
            for key in transaction.keys
        ]
        if unanswered:
            self._ledger.record_outcomes(unanswered)
            self.wake()

    async def _repair(self, outlook: Outlook) -> None:
        """Fill gaps, replace what must not land, raise fees, and hand over again what may be lost."""
        now = self._clock()
        to_push: list[InFlight] = []
        for nonce in self._pipeline.gaps(outlook.count):
            to_push += await self._put_filler(nonce, None, outlook)
        for entry in self._pipeline.unmined:
            if entry.must_replace:
                to_push += await self._put_filler(entry.transaction.nonce, entry.transaction, outlook)
            elif (
                entry.must_raise
                or entry.transaction.max_fee_wei < outlook.base_fee_wei
                or now - entry.signed_at >= self._policy.bump_after_s
            ):
                to_push += self._raise_fee(entry, outlook)
            elif entry.pushed_at is None or now - entry.pushed_at >= self._policy.rebroadcast_after_s:
                to_push.append(entry)
        await self._push(to_push)

    async def _send_ready(self, outlook: Outlook) -> None:
        """Check, sign, record and send the outputs that wait, as far as there is room."""
        free = self._policy.max_in_flight - len(self._pipeline.unmined)
        if free <= 0:
            return
        precheck, block_gas = self._precheck, outlook.gas_limit
        most = min(self._batch_limit, precheck.largest_count(block_gas))
        results = self._ledger.ready(free * most, self._cursor - self._policy.confirmations)
        self._has_backlog = False
        if not results:
            return
        fees, base_fee_wei = self._fees, outlook.base_fee_wei
        if (offer := fees.offer(base_fee_wei, outlook.tip_wei)) is None:
            self._has_backlog = True
            _log.warning("fee_above_cap", base_fee_wei=base_fee_wei, cap_wei=fees.max_fee_cap_wei)
            return
        room = precheck.gas_room(block_gas)
        batches = list(pack(results, max_count=most, max_gas=room, gas_of=precheck.gas_of))
        self._is_sending = True
        passed, refused = await precheck.check(batches[:free], block_gas)
        self._give_up(refused)
        if self._in_doubt or len(results) == free * most or max(len(batches), len(passed)) > free:
            self.wake()
        if not self._in_doubt:  # else a fork was seen meanwhile: nonces and outputs are read anew first
            await self._push([entry for one in passed[:free] for entry in self._put(one, offer)])
        self._is_sending = False

    def _put(self, checked: Checked, offer: Fees) -> list[InFlight]:
        """Sign and record one batch; nothing when the ledger knows better by now."""
        transaction = self._composer.answer(self._pipeline.next_nonce, checked, offer)
        if not self._ledger.record_sent(transaction, checked.batch.results):
            self.wake()
            return []
        entry = InFlight(transaction, signed_at=self._clock())
        self._pipeline.put(entry)
        return [entry]

    def _give_up(self, refused: Sequence[Refused]) -> None:
        """Record what becomes of outputs that the contract refuses."""
        outcomes = [self._outcome(one) for one in refused]
        if outcomes:
            self._ledger.record_outcomes(outcomes)

    def _outcome(self, refused: Refused) -> CallOutcome:
        key, reason = refused.result.key, refused.error.name or "reverted"
        if refused.revert_class is RevertClass.RETRY:
            pause_s = self._pause(key)
            _log.warning(
                "result_refused_for_now", service_id=key.service_id, call_id=key.call_id,
                reason=str(refused.error), retry_after_s=pause_s,
            )  # fmt: skip
            return CallOutcome(key=key, state=CallState.READY, reason=reason, retry_after_s=pause_s)
        if refused.revert_class is RevertClass.PERMANENT:
            _log.error(
                "result_refused_for_good", service_id=key.service_id, call_id=key.call_id,
                reason=str(refused.error),
            )  # fmt: skip
        return CallOutcome(key=key, state=CallState.CLOSED, reason=reason)

    async def _put_filler(self, nonce: int, old: SentTransaction | None, outlook: Outlook) -> list[InFlight]:
        """Record an empty transaction for a nonce; the outputs that ``old`` carried there wait again."""
        now = (outlook.base_fee_wei, outlook.tip_wei)
        offer = self._fees.offer(*now) if old is None else self._fees.raise_offer(_fees_of(old), *now)
        if offer is None:
            _log.warning("nonce_not_filled", nonce=nonce, cap_wei=self._fees.max_fee_cap_wei)
            return []
        account = to_hex(self._operator)
        gas = parse_quantity(await self._rpc.call("eth_estimateGas", {"from": account, "to": account}))
        transaction = self._composer.filler(nonce, gas, offer)
        self._ledger.record_sent(transaction, [])
        _log.info("nonce_filled", nonce=nonce, replaced=old is not None)
        self.wake()
        entry = InFlight(transaction, signed_at=self._clock())
        self._pipeline.put(entry)
        return [entry]

    def _raise_fee(self, entry: InFlight, outlook: Outlook) -> list[InFlight]:
        """Record the same transaction with higher fees; at the cap, only hand it over again."""
        old = entry.transaction
        offer = self._fees.raise_offer(_fees_of(old), outlook.base_fee_wei, outlook.tip_wei)
        if offer is None:
            _log.warning("fee_not_raised", nonce=old.nonce, cap_wei=self._fees.max_fee_cap_wei)
            entry.signed_at = self._clock()
            entry.must_raise = False
            return []
        transaction = self._composer.raised(old, offer)
        self._ledger.record_sent(transaction, None)
        _log.info("fee_raised", nonce=old.nonce, max_fee_wei=offer.max_fee_wei)
        raised = InFlight(transaction, signed_at=self._clock())
        self._pipeline.put(raised)
        return [raised]

    async def _push(self, entries: Sequence[InFlight]) -> None:
        """Hand recorded transactions to the end point, and read what it has against them."""
        if not entries:
            return
        for entry in entries:
            entry.pushed_at = None
        answers = await self._rpc.batch(
            [("eth_sendRawTransaction", [to_hex(entry.transaction.raw)]) for entry in entries]
        )
        now = self._clock()
        for entry, answer in zip(entries, answers, strict=True):
            entry.pushed_at = now
            if isinstance(answer, ChainError):
                self._take_refusal(entry, answer)
            else:
                self._batch_limit = min(self._batch_limit + 1, self._policy.max_batch)

    def _take_refusal(self, entry: InFlight, error: ChainError) -> None:
        """Note what the end point has against a transaction; a later step acts on it."""
        refusal = classify_refusal(error)
        transaction = entry.transaction
        if refusal is Refusal.ALREADY_KNOWN:
            return
        if refusal is Refusal.NONCE_TOO_LOW:
            # Perhaps it was ours, and the reply got lost: the count and the result logs will tell.
            self._in_doubt = True
            self._wake.set()
        elif refusal is Refusal.UNDERPRICED:
            entry.must_raise = True
        elif refusal is Refusal.NO_FUNDS:
            _log.error(
                "operator_out_of_funds",
                operator=self._operator,
                nonce=transaction.nonce,
                reason=str(error),
            )
        elif refusal is Refusal.TOO_LARGE:
            self._refuse_for_good(entry, error)
        elif isinstance(error, RpcError) and error.code is None:
            entry.pushed_at = None  # the reply is missing, which says nothing about the transaction
        else:
            entry.refusals += 1
            _log.warning("transaction_refused", nonce=transaction.nonce, reason=str(error))
            if entry.refusals >= _MAX_REFUSALS:
                self._refuse_for_good(entry, error)

    def _refuse_for_good(self, entry: InFlight, error: ChainError) -> None:
        """Take the outputs out of a transaction that is never accepted; smaller ones may be."""
        keys = entry.transaction.keys
        nonce = entry.transaction.nonce
        entry.must_replace = True
        self._wake.set()
        if len(keys) > 1:
            self._batch_limit = max(1, len(keys) // 2)
            _log.warning("batch_refused", nonce=nonce, entries=len(keys), reason=str(error))
            return
        _log.error("transaction_refused_for_good", nonce=nonce, reason=str(error))
        self._ledger.record_outcomes(
            [
                CallOutcome(key=key, state=CallState.CLOSED, reason="transaction_refused", nonce=nonce)
                for key in keys
            ]
        )

    def _pause(self, key: CallKey) -> float:
        """Seconds until the next attempt for a call; each attempt that fails doubles them."""
        if len(self._attempts) > _MAX_REMEMBERED:
            self._attempts.clear()
        attempt = self._attempts[key] = self._attempts.get(key, 0) + 1
        return self._backoff(attempt, limit_s=_MAX_BACKOFF_S)

    def _backoff(self, attempt: int, *, limit_s: float) -> float:
        return float(min(self._policy.retry_s * 2 ** min(attempt - 1, 16), limit_s))


def _fees_of(transaction: SentTransaction) -> Fees:
    return Fees(max_fee_wei=transaction.max_fee_wei, max_priority_fee_wei=transaction.max_priority_fee_wei)
