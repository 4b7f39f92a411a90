"""The node's memory: calls before they run, outputs before they are sent, how far the chain is read.

Invariant: a call moves only along these edges, each inside one transaction::

    SEEN -> RUNNING -> READY <-> SENT -> DONE
      ^        |         |         |
      +--------+         +-> CLOSED <-+          any -> ORPHANED -> SEEN, RUNNING, READY or SENT

An output is used for a call only while inputs, job and caller are the ones that it was computed from.
After ``kill -9`` everything recorded is there. After a power cut the newest commits may be gone; they are
read from the chain and computed again, and the contract refuses a second result: one answer on the chain.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from blueprint.errors import JournalError
from blueprint.store.database import Database
from blueprint.store.outbox import Outbox
from blueprint.store.records import (
    CALL_COLUMNS,
    read_call,
    to_signed,
)
from blueprint.store.step import ChainStep
from blueprint.types import (
    Address,
    BlockRef,
    CallKey,
    CallState,
    ChainUpdate,
    Hash,
    JobCall,
)

__all__ = ["Applied", "Journal"]

_RESTART: Final = "UPDATE calls SET state = 'seen' WHERE scope = ? AND state = 'running'"
_CLAIM: Final = f"""
UPDATE calls SET state = 'running', started_at = ?, attempts = attempts + 1 WHERE id IN (
    SELECT id FROM calls WHERE scope = ? AND state = 'seen' AND not_before <= ? ORDER BY id LIMIT ?)
RETURNING {CALL_COLUMNS}, id
"""  # noqa: S608 - constant column names
_OUTPUT: Final = """
UPDATE calls SET state = 'ready', output = ?, ready_at = ?, reason = NULL, attempts = 0, not_before = 0
WHERE scope = ? AND service_id = ? AND call_id = ? AND state = 'running'
AND inputs_hash = ? AND job_index = ? AND caller = ?
"""
_FAILURE: Final = """
UPDATE calls SET reason = :reason, not_before = :now + :retry_s * (1 << min(max(attempts - 1, 0), 20)),
    state = iif(attempts >= :max_attempts, 'closed', 'seen'),
    ended_at = iif(attempts >= :max_attempts, :now, NULL)
WHERE scope = :scope AND service_id = :service_id AND call_id = :call_id AND state = 'running'
AND inputs_hash = :inputs_hash RETURNING id
"""
_POSTPONEMENT: Final = """
UPDATE calls SET state = 'seen', reason = 'busy', not_before = ?, attempts = max(attempts - 1, 0)
WHERE scope = ? AND service_id = ? AND call_id = ? AND state = 'running' AND inputs_hash = ?
"""
_PRUNE_CALLS: Final = """
DELETE FROM calls WHERE id IN (
    SELECT id FROM calls WHERE scope = :scope AND state IN ('done', 'closed', 'orphaned')
    AND block_number < :oldest AND coalesce(result_block, 0) < :oldest
    ORDER BY id LIMIT min(:portion, max(0, -:kept + (
        SELECT count(*) FROM calls WHERE scope = :scope AND state IN ('done', 'closed', 'orphaned')))))
"""
_PRUNE_TRANSACTIONS: Final = """
DELETE FROM transactions WHERE scope = :scope AND recorded_at < :long_ago
AND nonce < (SELECT max(nonce) FROM transactions WHERE scope = :scope)
AND NOT EXISTS (
    SELECT 1 FROM calls WHERE calls.scope = :scope AND calls.nonce = transactions.nonce
    AND (state != 'done' OR result_block >= :oldest))
"""
_PRUNE_AFTER_S: Final = 60.0
_WINDOW_BLOCKS: Final = 512
_KEPT_CALLS: Final = 20_000
_PRUNED_AT_ONCE: Final = 500
_PORTIONS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a step of the chain changed for the work under way."""

    cancelled: Sequence[CallKey]
    """Calls whose handler may be running for nothing: orphaned, answered, or with other inputs now."""
    is_fork: bool
    """Blocks were undone, so that transactions may have left the chain."""


@dataclass(slots=True)
class _Pending:
    """An output that waits for the next group commit."""

    call: JobCall
    output: bytes
    recorded: asyncio.Future[bool]


class Journal(Outbox):
    """Calls, outputs, transactions and the cursor of one contract, in one SQLite file.

    Used on the event loop by one node; methods return after the commit. ``blueprint.store.reader`` is for
    everybody else. Every method may raise JournalError, after which the node must stop.

    Args:
        path: the file; it is created when it does not exist, its folder is not.
        chain_id: the chain that the node follows.
        contract: the contract that the node follows.
        operator: the account that answers. When it changes, outputs sent by the old one are sent again.
        clock: Unix seconds.
        kept_calls: how many calls that have ended are kept for the command line.
    """

    def __init__(
        self,
        path: Path,
        *,
        chain_id: int,
        contract: Address,
        operator: Address,
        clock: Callable[[], float] = time.time,
        kept_calls: int = _KEPT_CALLS,
    ) -> None:
        self._kept_calls = kept_calls
        self._pending: list[_Pending] = []
        database = Database(path)
        try:
            super().__init__(database, chain_id=chain_id, contract=contract, operator=operator, clock=clock)
            with database.transaction() as db:
                db.execute(_RESTART, (self._scope,))
        except BaseException:
            database.close()
            raise

    @property
    def path(self) -> Path:
        """The file of the journal."""
        return self._database.path

    def close(self) -> None:
        """Write what waits, close the file and give up its lock."""
        try:
            self._flush()
        finally:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the chain says.

    def window(self) -> Sequence[BlockRef]:
        """The newest blocks that were read, ascending; the last one is the cursor."""
        rows = self._all(
            "SELECT number, hash, parent_hash FROM blocks WHERE scope = ? ORDER BY number", self._scope
        )
        return [BlockRef(number=n, hash=Hash(h), parent_hash=Hash(p)) for n, h, p in rows]

    def cursor(self) -> int | None:
        """The number of the newest block that was read; None before the first."""
        ((number,),) = self._all("SELECT max(number) FROM blocks WHERE scope = ?", self._scope)
        return None if number is None else int(number)

    def apply(self, update: ChainUpdate) -> Applied:
        """Commit one step of the chain as a whole: the undoing of a fork, new blocks, calls and results."""
        now = self._clock()
        with self._database.transaction() as db:
            step = ChainStep(db, self._scope, self._operator, now)
            if update.fork_number is not None:
                step.undo(update.fork_number)
            for call in update.calls:
                step.record_call(call)
            for result in update.results:
                if result.operator == self._operator:
                    step.record_result(result)
            db.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)",
                [(self._scope, block.number, block.hash, block.parent_hash) for block in update.blocks],
            )
            if update.blocks:
                db.execute(
                    "DELETE FROM blocks WHERE scope = ? AND number <= ?",
                    (self._scope, update.blocks[-1].number - _WINDOW_BLOCKS),
                )
            db.execute("UPDATE scopes SET head_number = ? WHERE id = ?", (update.head_number, self._scope))
            ended = self._records(db, step.ended)
        self._tell(ended)
        return Applied(
            cancelled=[self._key(service_id, call_id) for service_id, call_id in step.stopped],
            is_fork=update.fork_number is not None,
        )

    # The work.

    def claim(self, limit: int) -> Sequence[JobCall]:
        """Mark up to ``limit`` calls as RUNNING, the oldest first, and return them."""
        if limit <= 0:
            return []
        now = self._clock()
        with self._database.transaction() as db:
            rows = db.execute(_CLAIM, (now, self._scope, now, limit)).fetchall()
        rows.sort(key=lambda row: row[-1])
        return [read_call(self._chain_id, self._contract, row[:-1]) for row in rows]

    async def record_output(self, call: JobCall, output: bytes) -> bool:
        """Record the output of a RUNNING call, in one commit with those of calls that end at the same moment.

        The record is made even when the waiting task is cancelled.

        Returns:
            False when the call is gone or is another one by now; the output is then dropped.
        """
        loop = asyncio.get_running_loop()
        if not self._pending:
            loop.call_soon(self._flush)
        recorded: asyncio.Future[bool] = loop.create_future()
        self._pending.append(_Pending(call, output, recorded))
        return await recorded

    def record_failure(
        self, call: JobCall, reason: str, *, retry_s: float, max_attempts: int
    ) -> CallState | None:
        """Put a RUNNING call whose handler failed back to SEEN, or close it after ``max_attempts``.

        Args:
            call: as it was claimed.
            reason: a short text for logs and the command line.
            retry_s: the pause after the first failure; it doubles with each.
            max_attempts: how often a handler is started; counted over restarts of the node.

        Returns:
            The new state, or None when the call is gone or is another one by now.
        """
        now = self._clock()
        values = {
            "scope": self._scope,
            "service_id": to_signed(call.key.service_id),
            "call_id": to_signed(call.key.call_id),
            "inputs_hash": call.inputs_hash,
            "reason": reason,
            "now": now,
            "retry_s": retry_s,
            "max_attempts": max_attempts,
        }
        with self._database.transaction() as db:
            rows = db.execute(_FAILURE, values).fetchall()
            records = self._records(db, [id_ for (id_,) in rows])
        self._tell([record for record in records if record.state is CallState.CLOSED])
        return records[0].state if records else None

    def postpone(self, call: JobCall, *, retry_s: float) -> None:
        """Put a RUNNING call for which there was no room back to SEEN; it is started again after a pause.

        This is no attempt: a call can be postponed as often as it takes. Nothing happens when the call is
        gone or is another one by now.
        """
        key = (self._scope, to_signed(call.key.service_id), to_signed(call.key.call_id))
        with self._database.transaction() as db:
            db.execute(_POSTPONEMENT, (self._clock() + retry_s, *key, call.inputs_hash))

    # The house-keeping.

    def counts(self) -> dict[CallState, int]:
        """How many calls are in each state."""
        found = dict(
            self._all("SELECT state, count(*) FROM calls WHERE scope = ? GROUP BY state", self._scope)
        )
        return {state: found.get(state.value, 0) for state in CallState}

    async def maintain(self) -> None:
        """Forget ended calls beyond the number to keep, and fold the write-ahead log into the file."""
        for _ in range(_PORTIONS):
            if not self._prune():
                break
            await asyncio.sleep(0)  # others run between two portions
        await asyncio.to_thread(self._database.checkpoint)

    def _prune(self) -> bool:
        """Delete one portion of what can never be needed again; say whether there may be more."""
        oldest = self._all("SELECT min(number) FROM blocks WHERE scope = ?", self._scope)[0][0]
        if oldest is None:
            return False
        where = {"scope": self._scope, "oldest": oldest}
        with self._database.transaction() as db:
            deleted = db.execute(
                _PRUNE_CALLS, {**where, "portion": _PRUNED_AT_ONCE, "kept": self._kept_calls}
            ).rowcount
            # The newest transaction stays: its nonce shows how far this journal has counted.
            db.execute(_PRUNE_TRANSACTIONS, {**where, "long_ago": self._clock() - _PRUNE_AFTER_S})
        return deleted == _PRUNED_AT_ONCE

    def _flush(self) -> None:
        """Commit the outputs that wait, all at once, and wake those who wait for them."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        now = self._clock()
        try:
            with self._database.transaction() as db:
                accepted = [
                    db.execute(
                        _OUTPUT,
                        (
                            item.output,
                            now,
                            *self._where(call.key),
                            call.inputs_hash,
                            call.job_index,
                            call.caller,
                        ),
                    ).rowcount
                    == 1
                    for item in pending
                    for call in [item.call]
                ]
        except JournalError as exc:
            for item in pending:
                if not item.recorded.done():
                    item.recorded.set_exception(exc)
            return
        for item, is_recorded in zip(pending, accepted, strict=True):
            if not item.recorded.done():
                item.recorded.set_result(is_recorded)
