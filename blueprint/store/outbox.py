"""The sending half of the journal: outputs that wait, and the transactions that carry them.

Invariant: an output is in SENT if and only if a recorded transaction carries exactly these bytes for it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any, Final

from blueprint.store.database import Database
from blueprint.store.records import RECORD_COLUMNS, CallRecord, read_record, to_signed, to_unsigned
from blueprint.types import (
    Address,
    CallKey,
    CallOutcome,
    CallState,
    Hash,
    ReadyResult,
    SentTransaction,
)

_UNCONFIRMED: Final = """
SELECT nonce, hash, gas, max_fee_wei, max_priority_fee_wei, answers, data, raw FROM transactions
WHERE scope = ? AND (nonce >= ?
    OR nonce IN (SELECT nonce FROM calls WHERE scope = ? AND nonce IS NOT NULL AND state = 'sent'))
ORDER BY nonce
"""
_CARRIED: Final = """
SELECT nonce, service_id, call_id, state FROM calls
WHERE scope = ? AND nonce IS NOT NULL AND state IN ('sent', 'done') ORDER BY id
"""
_SENT: Final = """
INSERT INTO transactions (scope, nonce, hash, gas, max_fee_wei, max_priority_fee_wei, recorded_at, answers,
    data, raw)
VALUES (:scope, :nonce, :hash, :gas, :max_fee, :priority_fee, :now, coalesce(:answers, 0), :data, :raw)
ON CONFLICT DO UPDATE SET hash = :hash, gas = :gas, max_fee_wei = :max_fee,
    max_priority_fee_wei = :priority_fee, recorded_at = :now, answers = coalesce(:answers, answers),
    data = :data, raw = :raw
"""
_IN_STATE: Final = """
scope = :scope AND service_id = :service_id AND call_id = :call_id AND state = :from_state AND nonce IS :nonce
"""
_TAKE_BACK: Final = f"""
UPDATE calls SET state = 'ready', nonce = NULL, reason = :reason, attempts = attempts + 1,
    not_before = :not_before WHERE {_IN_STATE}
"""  # noqa: S608 - constants only
_CLOSE: Final = f"""
UPDATE calls SET state = 'closed', nonce = NULL, reason = :reason, ended_at = :now,
    result_block = (SELECT max(number) FROM blocks WHERE scope = :scope) WHERE {_IN_STATE} RETURNING id
"""  # noqa: S608 - constants only

__all__ = ["Outbox"]


class Outbox:
    """What the submitter needs of the journal; one per contract and operator."""

    def __init__(
        self,
        database: Database,
        *,
        chain_id: int,
        contract: Address,
        operator: Address,
        clock: Callable[[], float],
    ) -> None:
        self.on_end: Callable[[CallRecord], None] | None = None
        """Called once for each call that ends, after the commit that ended it."""
        self._chain_id = chain_id
        self._contract = contract
        self._operator = operator
        self._clock = clock
        self._database = database
        with database.transaction() as db:
            self._scope = _enter_scope(db, chain_id, contract, operator)

    def ready(self, limit: int, up_to_block: int) -> Sequence[ReadyResult]:
        """Outputs that wait to be sent, the oldest first, of calls in blocks up to ``up_to_block``."""
        rows = self._all(
            "SELECT service_id, call_id, inputs_hash, output FROM calls WHERE scope = ? AND state = 'ready' "
            "AND block_number <= ? AND not_before <= ? ORDER BY id LIMIT ?",
            self._scope, up_to_block, self._clock(), limit,
        )  # fmt: skip
        return [
            ReadyResult(key=self._key(service_id, call_id), inputs_hash=Hash(inputs_hash), output=output)
            for service_id, call_id, inputs_hash, output in rows
        ]

    def unconfirmed(self, from_nonce: int) -> Sequence[SentTransaction]:
        """Recorded transactions, from ``from_nonce`` on, and earlier ones that left calls unanswered.

        ``keys`` are the calls in SENT, whose result was not seen on the chain.
        """
        rows = self._all(_UNCONFIRMED, self._scope, from_nonce, self._scope)
        calls = self._all(_CARRIED, self._scope)
        keys: dict[int, list[CallKey]] = {}
        live: Counter[int] = Counter()
        for nonce, service_id, call_id, state in calls:
            live[nonce] += 1
            if state == CallState.SENT:
                keys.setdefault(nonce, []).append(self._key(service_id, call_id))
        return [
            SentTransaction(
                nonce=nonce,
                hash=Hash(hash_),
                raw=raw,
                keys=tuple(keys.get(nonce, ())),
                is_stale=live[nonce] < answers,
                data=data,
                gas=gas,
                max_fee_wei=fee,
                max_priority_fee_wei=tip,
            )
            for nonce, hash_, gas, fee, tip, answers, data, raw in rows
        ]

    def record_sent(self, transaction: SentTransaction, results: Sequence[ReadyResult] | None) -> bool:
        """Record a transaction before it is sent; it replaces the one with the same nonce.

        Args:
            transaction: as signed.
            results: the outputs that it carries; None when it is the same answer with another fee.

        Returns:
            False, with nothing recorded, when one of the outputs is no longer the one to send.
        """
        values = {
            "scope": self._scope,
            "nonce": transaction.nonce,
            "hash": transaction.hash,
            "gas": transaction.gas,
            "max_fee": transaction.max_fee_wei,
            "priority_fee": transaction.max_priority_fee_wei,
            "now": self._clock(),
            "answers": None if results is None else len(results),
            "data": transaction.data,
            "raw": transaction.raw,
        }
        try:
            with self._database.transaction() as db:
                if results is not None:
                    self._attach(db, transaction.nonce, results)
                db.execute(_SENT, values)
        except _StaleOutputError:
            return False
        return True

    def record_outcomes(self, outcomes: Sequence[CallOutcome]) -> None:
        """Take outputs that did not land back to READY or close their calls; what is DONE stays DONE."""
        now = self._clock()
        ended: list[int] = []
        with self._database.transaction() as db:
            for outcome in outcomes:
                values = {
                    "scope": self._scope,
                    "service_id": to_signed(outcome.key.service_id),
                    "call_id": to_signed(outcome.key.call_id),
                    "from_state": CallState.READY if outcome.nonce is None else CallState.SENT,
                    "nonce": outcome.nonce,
                    "reason": outcome.reason,
                    "now": now,
                    "not_before": now + outcome.retry_after_s,
                }
                if outcome.state is CallState.CLOSED:
                    ended += [id_ for (id_,) in db.execute(_CLOSE, values).fetchall()]
                else:
                    db.execute(_TAKE_BACK, values)
            records = self._records(db, ended)
        self._tell(records)

    def _attach(self, db: Connection, nonce: int, results: Sequence[ReadyResult]) -> None:
        """Let the transaction with this nonce carry these outputs and no others."""
        db.execute(
            "UPDATE calls SET nonce = NULL, state = CASE state WHEN 'sent' THEN 'ready' ELSE state END "
            "WHERE scope = ? AND nonce = ?",
            (self._scope, nonce),
        )
        now = self._clock()
        for result in results:
            changed = db.execute(
                "UPDATE calls SET state = 'sent', nonce = ?, sent_at = ? WHERE scope = ? AND service_id = ? "
                "AND call_id = ? AND state = 'ready' AND inputs_hash = ? AND output = ?",
                (nonce, now, *self._where(result.key), result.inputs_hash, result.output),
            ).rowcount
            if changed != 1:
                raise _StaleOutputError

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._database.reading() as db:
            return db.execute(statement, values).fetchall()

    def _records(self, db: Connection, ids: Sequence[int]) -> list[CallRecord]:
        statement = f"SELECT {RECORD_COLUMNS} FROM calls WHERE id = ?"  # noqa: S608 - constant column names
        rows = (db.execute(statement, (id_,)).fetchone() for id_ in ids)
        return [read_record(self._chain_id, self._contract, row) for row in rows]

    def _tell(self, records: Sequence[CallRecord]) -> None:
        if self.on_end is not None:
            for record in records:
                self.on_end(record)

    def _key(self, service_id: int, call_id: int) -> CallKey:
        return CallKey(
            chain_id=self._chain_id,
            contract=self._contract,
            service_id=to_unsigned(service_id),
            call_id=to_unsigned(call_id),
        )

    def _where(self, key: CallKey) -> tuple[int, int, int]:
        return self._scope, to_signed(key.service_id), to_signed(key.call_id)


class _StaleOutputError(Exception):
    """Ends a transaction whose outputs are no longer the ones to send; never leaves this module."""


def _enter_scope(db: Connection, chain_id: int, contract: Address, operator: Address) -> int:
    """Return the row id of this chain and contract; forget transactions of an operator who left."""
    row = db.execute(
        "SELECT id, operator FROM scopes WHERE chain_id = ? AND contract = ?", (chain_id, contract)
    ).fetchone()
    if row is None:
        inserted = db.execute(
            "INSERT INTO scopes (chain_id, contract, operator) VALUES (?, ?, ?) RETURNING id",
            (chain_id, contract, operator),
        ).fetchone()
        return int(inserted[0])
    scope = int(row[0])
    if row[1] != operator:
        db.execute(
            "UPDATE calls SET nonce = NULL, state = CASE state WHEN 'sent' THEN 'ready' ELSE state END "
            "WHERE scope = ? AND nonce IS NOT NULL",
            (scope,),
        )
        db.execute("DELETE FROM transactions WHERE scope = ?", (scope,))
        db.execute("UPDATE scopes SET operator = ? WHERE id = ?", (operator, scope))
    return scope
