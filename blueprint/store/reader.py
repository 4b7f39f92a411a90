"""Looking into a journal from outside the node that holds it: the command line's view of the calls.

Invariant: nothing here takes the node's lock, and nothing but `retry_call` changes a row.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from blueprint.errors import ConfigError, JournalError
from blueprint.store.database import connect, translated
from blueprint.store.records import RECORD_COLUMNS, CallRecord, read_record, to_signed
from blueprint.store.schema import SCHEMA_VERSION
from blueprint.types import Address, CallKey, CallState

__all__ = ["count_calls", "find_calls", "list_calls", "retry_call"]

_LIST: Final = f"""
SELECT chain_id, contract, calls.id, {RECORD_COLUMNS} FROM calls JOIN scopes ON scopes.id = calls.scope
WHERE (:state IS NULL OR state = :state) ORDER BY calls.id DESC LIMIT :limit
"""  # noqa: S608 - constant column names
_FIND: Final = f"""
SELECT chain_id, contract, inputs, output, {RECORD_COLUMNS} FROM calls JOIN scopes ON scopes.id = calls.scope
WHERE service_id = :service_id AND call_id = :call_id ORDER BY calls.id
"""  # noqa: S608 - constant column names
_RETRY: Final = """
UPDATE calls SET state = CASE WHEN output IS NULL THEN 'seen' ELSE 'ready' END, not_before = 0, attempts = 0,
    ended_at = NULL, result_block = NULL
WHERE scope = (SELECT id FROM scopes WHERE chain_id = :chain_id AND contract = :contract)
AND service_id = :service_id AND call_id = :call_id AND state IN ('seen', 'ready', 'closed')
RETURNING state
"""


def list_calls(path: Path, *, state: CallState | None = None, limit: int = 100) -> Sequence[CallRecord]:
    """Return the newest calls, newest first, optionally only those in one state.

    Raises:
        JournalError: there is no journal at ``path``, or it cannot be read.
    """
    with _opened(path) as db:
        rows = db.execute(_LIST, {"state": state, "limit": limit}).fetchall()
    return [read_record(row[0], Address(row[1]), row[3:]) for row in rows]


def find_calls(path: Path, *, service_id: int, call_id: int) -> Sequence[CallRecord]:
    """Return the calls with this number, one for each contract that the journal follows, with their bytes.

    Raises:
        JournalError: there is no journal at ``path``, or it cannot be read.
    """
    with _opened(path) as db:
        where = {"service_id": to_signed(service_id), "call_id": to_signed(call_id)}
        rows = db.execute(_FIND, where).fetchall()
    return [
        replace(read_record(row[0], Address(row[1]), row[4:]), inputs=row[2], output=row[3]) for row in rows
    ]


def count_calls(path: Path) -> dict[CallState, int]:
    """Return how many calls are in each state, over all contracts that the journal follows.

    Raises:
        JournalError: there is no journal at ``path``, or it cannot be read.
    """
    with _opened(path) as db:
        found = dict(db.execute("SELECT state, count(*) FROM calls GROUP BY state").fetchall())
    return {state: found.get(state.value, 0) for state in CallState}


def retry_call(path: Path, key: CallKey) -> CallState:
    """Open a closed call again, or let one that waits go at once; a running node notices by itself.

    Returns:
        READY when the recorded output is sent again, SEEN when the call runs again.

    Raises:
        ConfigError: there is no such call, or its state leaves nothing to try again.
        JournalError: there is no journal at ``path``, or it cannot be written.
    """
    where = {
        "chain_id": key.chain_id,
        "contract": key.contract,
        "service_id": to_signed(key.service_id),
        "call_id": to_signed(key.call_id),
    }
    with _opened(path, read_only=False) as db:
        rows = db.execute(_RETRY, where).fetchall()
    if rows:
        return CallState(rows[0][0])
    name = f"call {key.call_id} of service {key.service_id}"
    for record in find_calls(path, service_id=key.service_id, call_id=key.call_id):
        if (record.key.chain_id, record.key.contract) == (key.chain_id, key.contract):
            raise ConfigError(
                f"{name} is {record.state}: only calls that are seen, ready or closed can be retried"
            )
    raise ConfigError(f"{name} is not in the journal {path}: look for it with `blueprint calls list`")


@contextmanager
def _opened(path: Path, *, read_only: bool = True) -> Iterator[sqlite3.Connection]:
    """Open an existing journal without the node's lock."""
    if not path.is_file():
        raise JournalError(f"journal {path}: there is no such file; a node creates it when it first runs")
    with translated(path), closing(connect(path, read_only=read_only)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise JournalError(
                f"journal {path}: its schema has version {version}, expected {SCHEMA_VERSION}; "
                "use the version of the node that wrote it"
            )
        yield connection
