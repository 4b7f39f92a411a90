"""Logs of the job contract, decoded by hand into job calls and results.

Source of the rule: Tangle EVM job protocol, events; Solidity ABI specification, dynamic types.
The published interface declares ``jobIndex`` as indexed, the deployed code does not index it, and the
first topic is the same: the number of topics tells which of the two a log is.

Invariant: a log either becomes a complete value or raises ``MalformedEventError``. A log whose ids can be
read but whose data cannot is not turned into a call: its inputs and its job index would be guesses, an
answer to them a false statement, and no contract that speaks this protocol can emit one. The listener says
so aloud.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from blueprint.chain.protocol import TOPICS
from blueprint.chain.wire import (
    JsonValue,
    parse_address,
    parse_bytes,
    parse_hash,
    parse_object,
    parse_quantity,
)
from blueprint.errors import ChainError
from blueprint.keccak import keccak256
from blueprint.types import Address, CallKey, Hash, JobCall, PriceQuote, ResultLog

__all__ = [
    "JOB_COMPLETED",
    "JOB_RESULT_SUBMITTED",
    "JOB_SUBMITTED",
    "JOB_SUBMITTED_FROM_QUOTE",
    "SERVICE_TERMINATED",
    "DecodedLog",
    "JobCompletedLog",
    "MalformedEventError",
    "RawLog",
    "ServiceTerminatedLog",
    "decode_log",
    "parse_log",
]

JOB_SUBMITTED: Final = TOPICS["JobSubmitted(uint64,uint64,uint8,address,bytes)"]
JOB_SUBMITTED_FROM_QUOTE: Final = TOPICS[
    "JobSubmittedFromQuote(uint64,uint64,uint8,address,address[],uint256,bytes)"
]
JOB_RESULT_SUBMITTED: Final = TOPICS["JobResultSubmitted(uint64,uint64,address,bytes)"]
JOB_COMPLETED: Final = TOPICS["JobCompleted(uint64,uint64)"]
SERVICE_TERMINATED: Final = TOPICS["ServiceTerminated(uint64)"]

_WORD = 32
_MAX_TOPICS = 4
_UINT64_END = 1 << 64
_UINT8_END = 1 << 8
_ADDRESS_END = 1 << 160
_MAX_QUOTED_OPERATORS = 1024


class MalformedEventError(ChainError):
    """A log of the job contract is not one that the protocol knows; the message names its transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLog:
    """A log as the end point gave it, in bytes."""

    address: Address
    topics: tuple[Hash, ...]
    data: bytes = field(repr=False)
    block_number: int
    block_hash: Hash
    transaction_hash: Hash
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCompletedLog:
    """A ``JobCompleted`` log: the required number of results is there, later ones are refused."""

    key: CallKey
    block_number: int
    block_hash: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTerminatedLog:
    """A ``ServiceTerminated`` log: the service takes no more jobs and no more results."""

    service_id: int
    block_number: int
    block_hash: Hash


DecodedLog: TypeAlias = JobCall | ResultLog | JobCompletedLog | ServiceTerminatedLog


def parse_log(value: JsonValue) -> RawLog:
    """Return the log that a JSON-RPC log object states.

    Raises:
        RpcError: it is not a log object of a mined block: the end point's mistake, not the contract's.
    """
    log = parse_object(value, what="a log")
    topics = log.get("topics")
    return RawLog(
        address=parse_address(log.get("address"), what="a log's address"),
        topics=tuple(parse_hash(topic, what="a topic") for topic in topics)
        if isinstance(topics, list)
        else (),
        data=parse_bytes(log.get("data"), what="a log's data"),
        block_number=parse_quantity(log.get("blockNumber"), what="a log's blockNumber"),
        block_hash=parse_hash(log.get("blockHash"), what="a log's blockHash"),
        transaction_hash=parse_hash(log.get("transactionHash"), what="a log's transactionHash"),
        log_index=parse_quantity(log.get("logIndex"), what="a log's logIndex"),
    )


def decode_log(log: RawLog, *, chain_id: int) -> DecodedLog | None:
    """Return what a log of the job contract states, or None for an event that a node does not follow.

    Raises:
        MalformedEventError: the first topic is known, but the rest is not an encoding of that event.
    """
    decoder = _DECODERS.get(log.topics[0]) if log.topics else None
    if decoder is None:
        return None
    try:
        return decoder(log, chain_id)
    except _FormatError as exc:
        raise MalformedEventError(
            f"log {log.log_index} of transaction 0x{log.transaction_hash.hex()} "
            f"(topics {[topic.hex()[:16] for topic in log.topics]}, {len(log.data)} bytes): {exc}"
        ) from exc


class _FormatError(ValueError):
    """Why a log is malformed; always wrapped with the log's place."""


def _decode_submitted(log: RawLog, chain_id: int) -> JobCall:
    _require_topics(log, (3, _MAX_TOPICS))
    job_index, caller, at = _job_and_caller(log)
    return _job_call(log, chain_id, job_index, caller, inputs=_dynamic_bytes(log.data, at))


def _decode_submitted_from_quote(log: RawLog, chain_id: int) -> JobCall:
    _require_topics(log, (3, _MAX_TOPICS))
    job_index, caller, at = _job_and_caller(log)
    operators = _addresses(log.data, at)
    price = int.from_bytes(_word_at(log.data, at + _WORD), "big")
    inputs = _dynamic_bytes(log.data, at + 2 * _WORD)
    quote = PriceQuote(operators=operators, total_price_wei=price)
    return _job_call(log, chain_id, job_index, caller, inputs=inputs, price_quote=quote)


def _decode_result(log: RawLog, chain_id: int) -> ResultLog:
    _require_topics(log, (_MAX_TOPICS,))
    return ResultLog(
        key=_key(log, chain_id),
        operator=_parse_address_word(log.topics[3], "operator"),
        block_number=log.block_number,
        block_hash=log.block_hash,
        transaction_hash=log.transaction_hash,
    )


def _decode_completed(log: RawLog, chain_id: int) -> JobCompletedLog:
    _require_topics(log, (3,))
    return JobCompletedLog(key=_key(log, chain_id), block_number=log.block_number, block_hash=log.block_hash)


def _decode_terminated(log: RawLog, _chain_id: int) -> ServiceTerminatedLog:
    _require_topics(log, (2,))
    service_id = _bounded(log.topics[1], _UINT64_END, "service id")
    return ServiceTerminatedLog(
        service_id=service_id, block_number=log.block_number, block_hash=log.block_hash
    )


_DECODERS: Mapping[Hash, Callable[[RawLog, int], DecodedLog]] = {
    JOB_SUBMITTED: _decode_submitted,
    JOB_SUBMITTED_FROM_QUOTE: _decode_submitted_from_quote,
    JOB_RESULT_SUBMITTED: _decode_result,
    JOB_COMPLETED: _decode_completed,
    SERVICE_TERMINATED: _decode_terminated,
}


def _job_and_caller(log: RawLog) -> tuple[int, Address, int]:
    """Return the job index, the caller, and where in the data the word after the caller is."""
    if len(log.topics) == _MAX_TOPICS:
        job_index = _bounded(log.topics[3], _UINT8_END, "job index")
        return job_index, _parse_address_word(_word_at(log.data, 0), "caller"), _WORD
    job_index = _bounded(_word_at(log.data, 0), _UINT8_END, "job index")
    return job_index, _parse_address_word(_word_at(log.data, _WORD), "caller"), 2 * _WORD


def _job_call(
    log: RawLog,
    chain_id: int,
    job_index: int,
    caller: Address,
    *,
    inputs: bytes,
    price_quote: PriceQuote | None = None,
) -> JobCall:
    return JobCall(
        key=_key(log, chain_id),
        job_index=job_index,
        caller=caller,
        inputs=inputs,
        inputs_hash=keccak256(inputs),
        block_number=log.block_number,
        block_hash=log.block_hash,
        transaction_hash=log.transaction_hash,
        log_index=log.log_index,
        price_quote=price_quote,
    )


def _key(log: RawLog, chain_id: int) -> CallKey:
    return CallKey(
        chain_id=chain_id,
        contract=log.address,
        service_id=_bounded(log.topics[1], _UINT64_END, "service id"),
        call_id=_bounded(log.topics[2], _UINT64_END, "call id"),
    )


def _require_topics(log: RawLog, counts: Sequence[int]) -> None:
    if len(log.topics) not in counts:
        expected = " or ".join(map(str, counts))
        raise _FormatError(f"expected {expected} topics, received {len(log.topics)}")


def _bounded(word: bytes, end: int, what: str) -> int:
    value = int.from_bytes(word, "big")
    if value >= end:
        raise _FormatError(f"the {what} is out of range: 0x{value:x}")
    return value


def _parse_address_word(word: bytes, what: str) -> Address:
    return Address(_bounded(word, _ADDRESS_END, what).to_bytes(20, "big"))


def _word_at(data: bytes, offset: int) -> bytes:
    word = data[offset : offset + _WORD]
    if len(word) != _WORD:
        raise _FormatError(f"expected a word at byte {offset}, but there are {len(data)} bytes")
    return word


def _tail_at(data: bytes, head: int) -> tuple[int, int]:
    """Return where the dynamic value whose offset is at ``head`` begins, after its length, and the length."""
    # SECURITY: offset and length are a stranger's 256-bit numbers; both are compared with what is there
    # before any use (test_offsets_and_lengths_beyond_the_data_are_refused).
    offset = int.from_bytes(_word_at(data, head), "big")
    if offset > len(data):
        raise _FormatError(f"an offset of 0x{offset:x} points outside of {len(data)} bytes")
    length = int.from_bytes(_word_at(data, offset), "big")
    if length > len(data):
        raise _FormatError(f"a length of 0x{length:x} is more than all {len(data)} bytes")
    return offset + _WORD, length


def _dynamic_bytes(data: bytes, head: int) -> bytes:
    start, length = _tail_at(data, head)
    value = data[start : start + length]
    if len(value) != length:
        raise _FormatError(f"expected {length} bytes at byte {start}, but there are {len(data)} bytes")
    return value


def _addresses(data: bytes, head: int) -> tuple[Address, ...]:
    start, count = _tail_at(data, head)
    if count > _MAX_QUOTED_OPERATORS:
        raise _FormatError(f"expected at most {_MAX_QUOTED_OPERATORS} quoted operators, received {count}")
    words = (_word_at(data, start + index * _WORD) for index in range(count))
    return tuple(_parse_address_word(word, "quoted operator") for word in words)
