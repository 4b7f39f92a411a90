"""The journal's tables.

Invariant: a file written under one ``SCHEMA_VERSION`` is never opened under another; the version changes
with any change of a statement below.
"""

from typing import Final

__all__ = ["SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION: Final = 1

# Unsigned 64-bit numbers are stored as SQLite's signed ones (see `records.to_signed`); amounts in wei that
# may be larger are text. Long values come last in a row, so that the columns before them are read alone.
SCHEMA: Final = """
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    chain_id INTEGER NOT NULL,
    contract BLOB NOT NULL,
    operator BLOB NOT NULL,
    head_number INTEGER NOT NULL DEFAULT 0,
    UNIQUE (chain_id, contract)
);
CREATE TABLE blocks (
    scope INTEGER NOT NULL REFERENCES scopes (id),
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    parent_hash BLOB NOT NULL,
    PRIMARY KEY (scope, number)
) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    scope INTEGER NOT NULL REFERENCES scopes (id),
    service_id INTEGER NOT NULL,
    call_id INTEGER NOT NULL,
    state TEXT NOT NULL,
    block_number INTEGER NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    nonce INTEGER,
    result_block INTEGER,
    result_transaction BLOB,
    reason TEXT,
    job_index INTEGER NOT NULL,
    caller BLOB NOT NULL,
    inputs_hash BLOB NOT NULL,
    block_hash BLOB NOT NULL,
    transaction_hash BLOB NOT NULL,
    log_index INTEGER NOT NULL,
    quoted_operators BLOB,
    quoted_price_wei TEXT,
    seen_at REAL NOT NULL,
    started_at REAL,
    ready_at REAL,
    sent_at REAL,
    ended_at REAL,
    inputs BLOB NOT NULL,
    output BLOB,
    UNIQUE (scope, service_id, call_id)
);
CREATE INDEX calls_by_state ON calls (scope, state, id);
CREATE INDEX calls_by_block ON calls (scope, block_number);
CREATE INDEX calls_by_result_block ON calls (scope, result_block) WHERE result_block IS NOT NULL;
CREATE INDEX calls_by_nonce ON calls (scope, nonce) WHERE nonce IS NOT NULL;
CREATE TABLE transactions (
    scope INTEGER NOT NULL REFERENCES scopes (id),
    nonce INTEGER NOT NULL,
    hash BLOB NOT NULL,
    gas INTEGER NOT NULL,
    max_fee_wei INTEGER NOT NULL,
    max_priority_fee_wei INTEGER NOT NULL,
    recorded_at REAL NOT NULL,
    answers INTEGER NOT NULL,
    data BLOB NOT NULL,
    raw BLOB NOT NULL,
    UNIQUE (scope, nonce)
);
"""
