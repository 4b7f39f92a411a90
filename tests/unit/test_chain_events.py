"""How logs of the job contract become calls and results, and which are refused."""

import random
from dataclasses import replace

import eth_abi
import pytest

from blueprint.chain import events
from blueprint.chain.events import MalformedEventError, RawLog, decode_log, parse_log
from blueprint.errors import RpcError
from blueprint.keccak import keccak256
from blueprint.types import Address, CallKey, Hash, PriceQuote

CONTRACT = Address(b"\x0c" * 20)
CALLER = Address(b"\xca" * 20)
OPERATORS = (Address(b"\x01" * 20), Address(b"\x02" * 20))
CHAIN_ID = 31337


def _word(value):
    return Hash(value.to_bytes(32, "big"))


def _raw(topics, data=b"", **changes):
    log = RawLog(
        address=CONTRACT,
        topics=tuple(topics),
        data=data,
        block_number=12,
        block_hash=Hash(b"\xbb" * 32),
        transaction_hash=Hash(b"\xee" * 32),
        log_index=3,
    )
    return replace(log, **changes)


def _hexed(address):
    return "0x" + address.hex()


def _submitted(inputs, *, job=7, service=4, call=9):
    data = eth_abi.encode(["uint8", "address", "bytes"], [job, _hexed(CALLER), inputs])
    return _raw([events.JOB_SUBMITTED, _word(service), _word(call)], data)


@pytest.mark.parametrize("size", [0, 1, 32, 33, 100_000])
def test_a_job_with_three_topics_carries_its_index_in_the_data(size):
    """The deployed form: the index is the first word of the data."""
    inputs = random.Random(size).randbytes(size)
    call = decode_log(_submitted(inputs), chain_id=CHAIN_ID)
    assert call.key == CallKey(chain_id=CHAIN_ID, contract=CONTRACT, service_id=4, call_id=9)
    assert (call.job_index, call.caller, call.inputs) == (7, CALLER, inputs)
    assert call.inputs_hash == keccak256(inputs)
    assert (call.block_number, call.log_index, call.price_quote) == (12, 3, None)
    assert (call.block_hash, call.transaction_hash) == (b"\xbb" * 32, b"\xee" * 32)


def test_a_job_with_four_topics_carries_its_index_as_a_topic():
    """The published form: the index is the fourth topic."""
    data = eth_abi.encode(["address", "bytes"], [_hexed(CALLER), b"inputs"])
    log = _raw([events.JOB_SUBMITTED, _word(4), _word(9), _word(7)], data)
    call = decode_log(log, chain_id=CHAIN_ID)
    assert (call.job_index, call.caller, call.inputs) == (7, CALLER, b"inputs")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_quoted_job_names_who_may_answer(indexed):
    """A job bought with a quote carries its operators and its price, in either form."""
    types = ["uint8", "address", "address[]", "uint256", "bytes"]
    values = [7, _hexed(CALLER), [_hexed(one) for one in OPERATORS], 10**20, b"inputs"]
    topics = [events.JOB_SUBMITTED_FROM_QUOTE, _word(4), _word(9)]
    if indexed:
        types, values, topics = types[1:], values[1:], [*topics, _word(7)]
    call = decode_log(_raw(topics, eth_abi.encode(types, values)), chain_id=CHAIN_ID)
    assert (call.job_index, call.caller, call.inputs) == (7, CALLER, b"inputs")
    assert call.price_quote == PriceQuote(operators=OPERATORS, total_price_wei=10**20)


def test_a_result_names_its_operator():
    """A result log is read from its topics alone."""
    topics = [events.JOB_RESULT_SUBMITTED, _word(4), _word(9), _word(int.from_bytes(OPERATORS[0], "big"))]
    result = decode_log(_raw(topics, eth_abi.encode(["bytes"], [b"out"])), chain_id=CHAIN_ID)
    assert (result.key.service_id, result.key.call_id, result.operator) == (4, 9, OPERATORS[0])


def test_completion_and_termination_are_read():
    """The events that end a call or a service name it."""
    completed = decode_log(_raw([events.JOB_COMPLETED, _word(4), _word(9)]), chain_id=CHAIN_ID)
    assert (completed.key.service_id, completed.key.call_id) == (4, 9)
    assert decode_log(_raw([events.SERVICE_TERMINATED, _word(4)]), chain_id=CHAIN_ID).service_id == 4


@pytest.mark.parametrize("topics", [[], [_word(1)], [_word(1), _word(2), _word(3), _word(4)]])
def test_other_events_are_none_of_ours(topics):
    """An event that a node does not follow is passed over."""
    assert decode_log(_raw(topics), chain_id=CHAIN_ID) is None


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("topic", [events.JOB_SUBMITTED, events.JOB_SUBMITTED_FROM_QUOTE])
def test_a_job_with_another_number_of_topics_is_refused(topic, count):
    """Only three or four topics have a meaning."""
    with pytest.raises(MalformedEventError, match="expected 3 or 4 topics"):
        decode_log(_raw([topic, *[_word(1)] * (count - 1)]), chain_id=CHAIN_ID)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(31),
        _word(7) + _word(1),
        _word(256) + _word(1) + _word(96) + _word(0),  # the job index is no uint8
        _word(7) + _word(1 << 160) + _word(96) + _word(0),  # the caller is no address
        _word(7) + _word(1) + _word(2**256 - 1) + _word(0),
        _word(7) + _word(1) + _word(96) + _word(2**256 - 1),
        _word(7) + _word(1) + _word(96) + _word(1),
        _word(7) + _word(1) + _word(97) + _word(0),
        _word(7) + _word(1) + _word(128) + _word(0),
    ],
)
def test_offsets_and_lengths_beyond_the_data_are_refused(data):
    """A number that points outside of the data is an error, never an allocation or a short read."""
    with pytest.raises(MalformedEventError, match="ee" * 32):
        decode_log(_raw([events.JOB_SUBMITTED, _word(4), _word(9)], data), chain_id=CHAIN_ID)


def test_ids_out_of_range_are_refused():
    """A call id that is no uint64 cannot be answered."""
    log = _submitted(b"")
    with pytest.raises(MalformedEventError, match="call id is out of range"):
        decode_log(replace(log, topics=(*log.topics[:2], _word(2**64))), chain_id=CHAIN_ID)


def test_too_many_quoted_operators_are_refused():
    """A list of operators longer than any service is garbage."""
    data = _word(7) + _word(1) + _word(160) + _word(5) + _word(0) + _word(1025) + bytes(1025 * 32)
    with pytest.raises(MalformedEventError, match="at most 1024"):
        decode_log(_raw([events.JOB_SUBMITTED_FROM_QUOTE, _word(4), _word(9)], data), chain_id=CHAIN_ID)


def test_random_data_never_escapes_the_two_outcomes():
    """Whatever the data, the outcome is a value or the typed error."""
    rng = random.Random(1)
    topics = [events.JOB_SUBMITTED, events.JOB_SUBMITTED_FROM_QUOTE, events.JOB_RESULT_SUBMITTED]
    decoded = 0
    for _ in range(3000):
        count = rng.randrange(5)
        words = [_word(rng.choice([0, 1, 32, 64, 96, 128, 2**64, 2**255])) for _ in range(rng.randrange(8))]
        log = _raw([rng.choice(topics), *[_word(rng.randrange(9))] * count], b"".join(words))
        try:
            decoded += decode_log(log, chain_id=CHAIN_ID) is not None
        except MalformedEventError:
            continue
    assert decoded > 0


LOG = {
    "address": _hexed(CONTRACT),
    "topics": ["0x" + "11" * 32],
    "data": "0x00ff",
    "blockNumber": "0xc",
    "blockHash": "0x" + "bb" * 32,
    "transactionHash": "0x" + "ee" * 32,
    "logIndex": "0x3",
    "removed": False,
}


def test_a_log_object_is_parsed():
    """JSON-RPC logs become bytes once, here."""
    assert parse_log(LOG) == _raw([Hash(b"\x11" * 32)], b"\x00\xff")


@pytest.mark.parametrize("name", [name for name in LOG if name not in {"topics", "removed"}])
@pytest.mark.parametrize("value", [None, 5, "0xzz"])
def test_a_broken_log_object_is_the_end_points_failure(name, value):
    """A log that is not of a mined block, or not a log, may be asked for again."""
    with pytest.raises(RpcError, match="log"):
        parse_log({**LOG, name: value})
