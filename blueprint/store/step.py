"""One step of the chain, written into the journal's tables inside the caller's transaction.

Invariant: an output stays with a call only while the call's inputs, job, caller and price quote are the
ones it was computed from; a call id that comes back with anything else starts anew.
"""

from sqlite3 import Connection
from typing import Final

from blueprint.store.records import pack_operators, to_signed
from blueprint.types import Address, CallState, JobCall, ResultLog

__all__ = ["ChainStep"]

_INSERT: Final = """
INSERT INTO calls (scope, service_id, call_id, state, block_number, job_index, caller, inputs_hash,
    block_hash, transaction_hash, log_index, quoted_operators, quoted_price_wei, seen_at, reason, ended_at,
    result_block, inputs)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id
"""
_FIND: Final = """
SELECT id, state, job_index, caller, inputs_hash, quoted_operators, block_hash, output IS NOT NULL, nonce
FROM calls WHERE scope = ? AND service_id = ? AND call_id = ?
"""
_MOVE: Final = """
UPDATE calls SET state = ?, block_number = ?, block_hash = ?, transaction_hash = ?, log_index = ? WHERE id = ?
"""
_NOT_OURS: Final = "not_quoted_operator"


class ChainStep:
    """Writes blocks' calls and results, and collects what that means for the work under way.

    Attributes:
        ended: row ids of calls that ended in this step.
    """

    def __init__(self, db: Connection, scope: int, operator: Address, now: float) -> None:
        self._db = db
        self._scope = scope
        self._operator = operator
        self._now = now
        self._stopped: dict[tuple[int, int], None] = {}
        self.ended: list[int] = []

    @property
    def stopped(self) -> list[tuple[int, int]]:
        """Stored service and call ids of calls whose handler may be running for nothing."""
        return list(self._stopped)

    def undo(self, fork_number: int) -> None:
        """Take back every block above ``fork_number``: its calls are orphaned, its results did not happen."""
        where = (self._scope, fork_number)
        running = self._db.execute(
            "SELECT service_id, call_id FROM calls "
            "WHERE scope = ? AND block_number > ? AND state = 'running'",
            where,
        )
        self._stopped.update(dict.fromkeys(running.fetchall()))
        self._db.execute("DELETE FROM blocks WHERE scope = ? AND number > ?", where)
        self._db.execute(
            "UPDATE calls SET state = 'orphaned', result_block = NULL, result_transaction = NULL, "
            "ended_at = NULL WHERE scope = ? AND block_number > ?",
            where,
        )
        self._db.execute(
            """UPDATE calls SET result_block = NULL, result_transaction = NULL, ended_at = NULL, state = CASE
                WHEN state NOT IN ('done', 'closed') THEN state WHEN output IS NULL THEN 'seen'
                WHEN nonce IS NULL THEN 'ready' ELSE 'sent' END
            WHERE scope = ? AND result_block > ?""",
            where,
        )

    def record_call(self, call: JobCall) -> None:
        """Record a call; one that came back after a fork goes on where it was, or starts anew."""
        quote = call.price_quote
        is_ours = quote is None or self._operator in quote.operators
        row = self._db.execute(
            _INSERT,
            (
                self._scope, to_signed(call.key.service_id), to_signed(call.key.call_id),
                CallState.SEEN if is_ours else CallState.CLOSED, call.block_number, call.job_index,
                call.caller, call.inputs_hash, call.block_hash, call.transaction_hash, call.log_index,
                pack_operators(quote),
                None if quote is None else str(quote.total_price_wei), self._now,
                None if is_ours else _NOT_OURS, None if is_ours else self._now,
                None if is_ours else call.block_number, call.inputs,
            ),
        ).fetchone()  # fmt: skip
        if row is None:
            self._record_again(call, is_ours=is_ours)
        elif not is_ours:
            self.ended.append(row[0])

    def record_result(self, result: ResultLog) -> None:
        """Mark a call as answered by us; results for calls that were never seen are passed over."""
        key = (to_signed(result.key.service_id), to_signed(result.key.call_id))
        found = self._db.execute(
            "SELECT id, state FROM calls WHERE scope = ? AND service_id = ? AND call_id = ?",
            (self._scope, *key),
        ).fetchone()
        if found is None or found[1] == CallState.ORPHANED:
            return
        self._db.execute(
            "UPDATE calls SET state = 'done', result_block = ?, result_transaction = ?, ended_at = ?, "
            "reason = NULL WHERE id = ?",
            (result.block_number, result.transaction_hash, self._now, found[0]),
        )
        if found[1] == CallState.RUNNING:
            self._stopped[key] = None
        if found[1] != CallState.DONE:
            self.ended.append(found[0])

    def _record_again(self, call: JobCall, *, is_ours: bool) -> None:
        """Bring a known call up to date with what the chain says of it now."""
        key = (to_signed(call.key.service_id), to_signed(call.key.call_id))
        row = self._db.execute(_FIND, (self._scope, *key)).fetchone()
        id_, state, job_index, caller, inputs_hash, operators, block_hash, has_output, nonce = row
        if state != CallState.ORPHANED and block_hash == call.block_hash:
            return  # the same log, delivered twice
        known = (job_index, caller, inputs_hash, operators)
        if known != (call.job_index, call.caller, call.inputs_hash, pack_operators(call.price_quote)):
            if state == CallState.RUNNING:
                self._stopped[key] = None
            self._db.execute("DELETE FROM calls WHERE id = ?", (id_,))
            self.record_call(call)
            return
        if state == CallState.ORPHANED:
            if not is_ours:
                state = CallState.CLOSED
            elif has_output:
                state = CallState.READY if nonce is None else CallState.SENT
            elif key in self._stopped:
                state = CallState.RUNNING  # the handler was never disturbed: it came back in the same step
                del self._stopped[key]
            else:
                state = CallState.SEEN
        self._db.execute(
            _MOVE, (state, call.block_number, call.block_hash, call.transaction_hash, call.log_index, id_)
        )
