"""The values that cross the node's rooms: blocks, job calls, results.

Invariant: a value of these types has been parsed; nothing downstream checks its shape again.
Addresses are 20 raw bytes, hashes 32; hexadecimal exists only at the edges (JSON-RPC, logs, command line).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NewType

__all__ = [
    "Address",
    "BlockRef",
    "CallKey",
    "CallOutcome",
    "CallState",
    "ChainUpdate",
    "Hash",
    "JobCall",
    "PriceQuote",
    "ReadyResult",
    "ResultLog",
    "SentTransaction",
]

Address = NewType("Address", bytes)
Hash = NewType("Hash", bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """A block by number and hash, with its parent's hash, so that linkage can be checked."""

    number: int
    hash: Hash
    parent_hash: Hash


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CallKey:
    """What names one job call: chain, contract, service and the call's number in that service."""

    chain_id: int
    contract: Address
    service_id: int
    call_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceQuote:
    """The price offer under which a call was bought: only the operators listed may answer."""

    operators: tuple[Address, ...]
    total_price_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCall:
    """One on-chain request, as a ``JobSubmitted`` or ``JobSubmittedFromQuote`` log states it."""

    key: CallKey
    job_index: int
    caller: Address
    inputs: bytes = field(repr=False)
    inputs_hash: Hash
    """keccak256 of ``inputs``; after a reorganisation the same call id may carry other inputs."""
    block_number: int
    block_hash: Hash
    transaction_hash: Hash
    log_index: int
    price_quote: PriceQuote | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLog:
    """A ``JobResultSubmitted`` log: some operator answered a call."""

    key: CallKey
    operator: Address
    block_number: int
    block_hash: Hash
    transaction_hash: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainUpdate:
    """One step of the chain as the listener saw it; the journal commits it as a whole.

    When ``fork_number`` is set, every block above it is undone first.
    """

    fork_number: int | None = None
    blocks: Sequence[BlockRef] = ()
    """New canonical blocks, ascending and linked, that extend the window; at least the last of the range."""
    calls: Sequence[JobCall] = ()
    results: Sequence[ResultLog] = ()
    head_number: int
    """The number of the newest block that the end point reported."""


class CallState(StrEnum):
    """Where a call stands in the journal."""

    SEEN = "seen"  # recorded, not yet started
    RUNNING = "running"  # a handler was started; after a crash it starts again
    READY = "ready"  # the output is recorded and waits to be sent
    SENT = "sent"  # a transaction with the output was signed and recorded
    DONE = "done"  # our own result log is on the chain
    CLOSED = "closed"  # nothing more to do: another operator completed it, or it will never be accepted
    ORPHANED = "orphaned"  # the block of the call was undone by a reorganisation


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyResult:
    """An output that waits to be sent."""

    key: CallKey
    inputs_hash: Hash
    output: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentTransaction:
    """A signed result transaction, recorded before it is sent. A replacement has the same nonce."""

    nonce: int
    hash: Hash
    raw: bytes = field(repr=False)
    keys: tuple[CallKey, ...]
    """The calls that it answers; empty for a transaction that only fills a nonce gap."""
    is_stale: bool = False
    """Set by the journal: it carries an output that must not land any more; another must take its nonce."""
    data: bytes = field(repr=False)
    """The call data, so that a replacement can be signed after a restart."""
    gas: int
    max_fee_wei: int
    max_priority_fee_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOutcome:
    """What became of an output that did not land: it waits for another attempt, or the call is closed."""

    key: CallKey
    state: Literal[CallState.READY, CallState.CLOSED]
    reason: str
    """A constant word for logs and the command line, such as ``job_already_completed``."""
    retry_after_s: float = 0.0
    """Seconds until the next attempt; only for ``READY``."""
    nonce: int | None = None
    """When set, only if the transaction with this nonce still carries the output; else only if it waits."""
