"""What the `deploy` job remembers of its calls: who has prepared what, what was committed, how it ended.

An entry moves only along these edges, each in one transaction::

    PREPARING -> PREPARED -> COMMITTING -> DEPLOYED
        |           |            |             |
        +-----------+------------+-------------+--> ENDING -> ENDED

Invariant: what an answer on the chain relies on is on the disk before the answer is given, and stays there
when the power fails.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from blueprint.store.database import Database
from blueprint.store.records import to_signed
from blueprint.types import Address, JobCall

__all__ = ["Entry", "EntryState", "OrderBook"]

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE entries (
    key TEXT PRIMARY KEY,
    chain_id INTEGER NOT NULL,
    contract BLOB NOT NULL,
    service_id INTEGER NOT NULL,
    call_id INTEGER NOT NULL,
    caller BLOB NOT NULL,
    state TEXT NOT NULL,
    changed_at REAL NOT NULL,
    expires_at REAL NOT NULL DEFAULT 0,
    takes_variables INTEGER NOT NULL DEFAULT 0,
    compose_hash BLOB NOT NULL DEFAULT x'',
    commitment BLOB NOT NULL DEFAULT x'',
    answer BLOB NOT NULL DEFAULT x'',
    outcome BLOB NOT NULL DEFAULT x''
);
CREATE INDEX entries_by_call ON entries (chain_id, contract, service_id, call_id, caller);
CREATE INDEX entries_by_state ON entries (state, changed_at);
CREATE TABLE waiting (call TEXT PRIMARY KEY, since REAL NOT NULL);
"""
_COLUMNS: Final = (
    "key, state, changed_at, expires_at, takes_variables, compose_hash, commitment, answer, outcome"
)
_KEPT_S: Final = 30 * 24 * 3600.0


class EntryState(StrEnum):
    """Where an entry stands."""

    PREPARING = "preparing"  # asked for, not answered; a repetition prepares again
    PREPARED = "prepared"  # answered; waits for its commit, or expires
    COMMITTING = "committing"  # a commit was accepted; only the same one may repeat it
    DEPLOYED = "deployed"  # it runs
    ENDING = "ending"  # what there is of it is still to be removed
    ENDED = "ended"  # nothing is left but what was answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One preparation and what became of it."""

    key: str
    state: EntryState
    changed_at: float
    """Unix seconds."""
    expires_at: float
    takes_variables: bool
    compose_hash: bytes
    commitment: bytes
    """Digest of the commit that was accepted; empty before."""
    answer: bytes = field(repr=False)
    """What the preparation was answered."""
    outcome: bytes = field(repr=False)
    """What the commit was answered; empty before."""


class OrderBook:
    """The entries, in one SQLite file, used on the event loop by one node.

    Every method may raise JournalError.

    Args:
        path: the file; it is created when it does not exist, its folder is not.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._database = Database(path, schema=_SCHEMA, version=_VERSION)
        # The chain gives calls back after a power cut, but not which identity was answered to one.
        self._database.connection.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the file and give up its lock."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Entries.

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key."""
        found = self._entries("key = ?", key)
        return found[0] if found else None

    def of_call(self, call: JobCall, call_id: int) -> Sequence[Entry]:
        """Return what this call's caller has prepared under a call id of the same service, the newest first.

        There may be several: after a reorganisation the id of an undone call belongs to another one.
        """
        where = "chain_id = ? AND contract = ? AND service_id = ? AND call_id = ? AND caller = ?"
        return self._entries(where, *self._names(call, call_id))

    def count(self, caller: Address, *, beside: str) -> int:
        """Say how many applications of a caller there are or may come to be, one key not counted."""
        query = (
            "SELECT count(*) FROM entries WHERE caller = ? AND key != ? AND state NOT IN ('ended', 'ending') "
            "AND NOT (state = 'prepared' AND expires_at <= ?)"
        )
        with self._database.reading() as db:
            (number,) = db.execute(query, (caller, beside, self._clock())).fetchone()
        return int(number)

    def counts(self) -> dict[EntryState, int]:
        """Say how many entries there are in each state that has any, those that ended aside."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT state, count(*) FROM entries WHERE state != 'ended' GROUP BY state ORDER BY state"
            ).fetchall()
        return {EntryState(state): number for state, number in rows}

    def open(self, key: str, call: JobCall) -> None:
        """Note that a call's preparation begins, or begins again."""
        names = self._names(call, call.key.call_id)
        with self._database.transaction() as db:
            db.execute("DELETE FROM entries WHERE key = ?", (key,))
            db.execute(
                "INSERT INTO entries (key, chain_id, contract, service_id, call_id, caller, state, "
                "changed_at) VALUES (?, ?, ?, ?, ?, ?, 'preparing', ?)",
                (key, *names, self._clock()),
            )

    def record_prepared(
        self, key: str, *, answer: bytes, compose_hash: bytes, takes_variables: bool, expires_at: float
    ) -> None:
        """Record what a preparation answers."""
        self._update(
            key, EntryState.PREPARED, answer=answer, compose_hash=compose_hash,
            takes_variables=takes_variables, expires_at=expires_at,
        )  # fmt: skip

    def record_commitment(self, key: str, commitment: bytes) -> None:
        """Record which commit was accepted."""
        self._update(key, EntryState.COMMITTING, commitment=commitment)

    def record_outcome(self, key: str, outcome: bytes, state: EntryState) -> None:
        """Record what a commit is answered, and what that leaves: DEPLOYED or ENDING."""
        self._update(key, state, outcome=outcome)

    def record_state(self, key: str, state: EntryState) -> None:
        """Record that an entry is to end, or has ended."""
        self._update(key, state)

    def lapsed(self, patience_s: float) -> Sequence[str]:
        """Return the keys of entries that are to be removed.

        These are preparations past their time, removals that are still due, and what no call has moved on for
        ``patience_s`` seconds although it was under way.
        """
        now = self._clock()
        where = (
            "state = 'ending' OR (state = 'prepared' AND expires_at <= ?) "
            "OR (state IN ('preparing', 'committing') AND changed_at <= ?)"
        )
        return [entry.key for entry in self._entries(where, now, now - patience_s)]

    # Calls that are for another operator.

    def waits_since(self, call: str) -> float:
        """Note that a call waits, and return since when, in Unix seconds."""
        with self._database.transaction() as db:
            db.execute("INSERT OR IGNORE INTO waiting VALUES (?, ?)", (call, self._clock()))
            (since,) = db.execute("SELECT since FROM waiting WHERE call = ?", (call,)).fetchone()
        return float(since)

    # The house-keeping.

    def maintain(self) -> None:
        """Forget what ended long ago, and fold the write-ahead log into the file."""
        oldest = (self._clock() - _KEPT_S,)
        with self._database.transaction() as db:
            db.execute("DELETE FROM entries WHERE state = 'ended' AND changed_at < ?", oldest)
            db.execute("DELETE FROM waiting WHERE since < ?", oldest)
        self._database.checkpoint()

    @staticmethod
    def _names(call: JobCall, call_id: int) -> tuple[int, bytes, int, int, bytes]:
        key = call.key
        return key.chain_id, key.contract, to_signed(key.service_id), to_signed(call_id), call.caller

    def _entries(self, where: str, *values: object) -> Sequence[Entry]:
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE {where} ORDER BY changed_at DESC",  # noqa: S608 - constants
                values,
            ).fetchall()
        return [
            Entry(
                key=key, state=EntryState(state), changed_at=changed_at, expires_at=expires_at,
                takes_variables=bool(takes_variables), compose_hash=compose_hash, commitment=commitment,
                answer=answer, outcome=outcome,
            )
            for key, state, changed_at, expires_at, takes_variables, compose_hash, commitment, answer, outcome
            in rows
        ]  # fmt: skip

    def _update(self, key: str, state: EntryState, **values: bytes | float) -> None:
        """Move an entry on; the names of the values are columns."""
        columns = "".join(f", {name} = ?" for name in values)
        with self._database.transaction() as db:
            db.execute(
                f"UPDATE entries SET state = ?, changed_at = ?{columns} WHERE key = ?",  # noqa: S608 - our own names
                (state, self._clock(), *values.values(), key),
            )
