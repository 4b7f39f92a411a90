"""The rows of the journal as values: a call with its history, and the call as the chain stated it.

Invariant: `read_call` gives back exactly what the journal was given, whatever the size of its numbers.
"""

from dataclasses import dataclass, field
from typing import Final

from blueprint.types import Address, CallKey, CallState, Hash, JobCall, PriceQuote

__all__ = [
    "CALL_COLUMNS",
    "RECORD_COLUMNS",
    "CallRecord",
    "CallRow",
    "RecordRow",
    "pack_operators",
    "read_call",
    "read_record",
    "to_signed",
    "to_unsigned",
]

_ADDRESS_BYTES: Final = 20

CALL_COLUMNS: Final = (
    "service_id, call_id, job_index, caller, inputs_hash, block_number, block_hash, transaction_hash, "
    "log_index, quoted_operators, quoted_price_wei, inputs"
)
RECORD_COLUMNS: Final = (
    "service_id, call_id, state, job_index, block_number, result_block, result_transaction, attempts, "
    "reason, seen_at, started_at, ready_at, sent_at, ended_at, caller, inputs_hash, transaction_hash, "
    "length(inputs), length(output), nonce, not_before"
)

CallRow = tuple[int, int, int, bytes, bytes, int, bytes, bytes, int, bytes | None, str | None, bytes]
"""The columns of ``CALL_COLUMNS``."""

RecordRow = tuple[
    int, int, str, int, int, int | None, bytes | None, int, str | None,
    float, float | None, float | None, float | None, float | None, bytes, bytes, bytes,
    int, int | None, int | None, float,
]  # fmt: skip
"""The columns of ``RECORD_COLUMNS``."""


def to_signed(number: int) -> int:
    """Map an unsigned 64-bit number to SQLite's signed one with the same bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def to_unsigned(number: int) -> int:
    """Undo `to_signed`."""
    return number + (1 << 64) if number < 0 else number


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """A call as the journal knows it, for logs and for the command line. Times are Unix seconds."""

    key: CallKey
    state: CallState
    job_index: int
    caller: Address
    inputs_hash: Hash
    inputs_bytes: int
    output_bytes: int | None
    block_number: int
    transaction_hash: Hash
    result_block: int | None
    """The block with our result log; for a closed call the last block that was read when it was closed."""
    result_transaction: Hash | None
    nonce: int | None
    """The nonce of the transaction that carries the output."""
    attempts: int
    not_before: float
    """No further attempt before this moment."""
    reason: str | None
    """Why the call was closed, or why the last attempt failed."""
    seen_at: float
    started_at: float | None = None
    ready_at: float | None = None
    sent_at: float | None = None
    ended_at: float | None = None
    inputs: bytes | None = field(default=None, repr=False)
    """Only where a single call was asked for."""
    output: bytes | None = field(default=None, repr=False)
    """Only where a single call was asked for, and when there is one."""


def pack_operators(quote: PriceQuote | None) -> bytes | None:
    """Join the operators of a price quote to one value."""
    return None if quote is None else b"".join(quote.operators)


def read_call(chain_id: int, contract: Address, row: CallRow) -> JobCall:
    """Build the call, as the chain stated it, from a row of ``CALL_COLUMNS``."""
    quote = None
    operators, price = row[9], row[10]
    if operators is not None and price is not None:
        starts = range(0, len(operators), _ADDRESS_BYTES)
        quote = PriceQuote(
            operators=tuple(Address(operators[at : at + _ADDRESS_BYTES]) for at in starts),
            total_price_wei=int(price),
        )
    return JobCall(
        key=_key(chain_id, contract, row[0], row[1]),
        job_index=row[2],
        caller=Address(row[3]),
        inputs=row[11],
        inputs_hash=Hash(row[4]),
        block_number=row[5],
        block_hash=Hash(row[6]),
        transaction_hash=Hash(row[7]),
        log_index=row[8],
        price_quote=quote,
    )


def read_record(chain_id: int, contract: Address, row: RecordRow) -> CallRecord:
    """Build the history of a call from a row of ``RECORD_COLUMNS``."""
    return CallRecord(
        key=_key(chain_id, contract, row[0], row[1]),
        state=CallState(row[2]),
        job_index=row[3],
        block_number=row[4],
        result_block=row[5],
        result_transaction=None if row[6] is None else Hash(row[6]),
        attempts=row[7],
        reason=row[8],
        seen_at=row[9],
        started_at=row[10],
        ready_at=row[11],
        sent_at=row[12],
        ended_at=row[13],
        caller=Address(row[14]),
        inputs_hash=Hash(row[15]),
        transaction_hash=Hash(row[16]),
        inputs_bytes=row[17],
        output_bytes=row[18],
        nonce=row[19],
        not_before=row[20],
    )


def _key(chain_id: int, contract: Address, service_id: int, call_id: int) -> CallKey:
    return CallKey(
        chain_id=chain_id,
        contract=contract,
        service_id=to_unsigned(service_id),
        call_id=to_unsigned(call_id),
    )
