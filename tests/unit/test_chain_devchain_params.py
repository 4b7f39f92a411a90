"""Arguments of JSON-RPC calls, and what a filter selects: pure functions."""

import pytest

from blueprint.chain.devchain.errors import JsonRpcError, reverted
from blueprint.chain.devchain.evm import MinedLog
from blueprint.chain.devchain.logs import LogFilter
from blueprint.chain.devchain.params import Params

ADDRESS = "0x" + "11" * 20
HASH = "0x" + "ab" * 32


@pytest.mark.parametrize("text", ["0x0", "0x1", "0xff", "0xFf", "0x" + "f" * 64])
def test_quantity_is_read(text: str) -> None:
    """A quantity is hexadecimal of up to 256 bits."""
    assert Params([text]).quantity(0) == int(text, 16)


@pytest.mark.parametrize(
    "value", ["", "0x", "0x01", "1", 1, "0xg", "-0x1", "0x1_0", " 0x1", "0x" + "f" * 65, None, True, []]
)
def test_quantity_of_another_shape_is_refused(value: object) -> None:
    """Leading zeros, missing prefixes, JSON numbers and anything longer than 256 bits are refused."""
    with pytest.raises(JsonRpcError) as caught:
        Params([value]).quantity(0)
    assert caught.value.code == -32602
    assert "0" in caught.value.message


@pytest.mark.parametrize("value", ["0x1", "0xzz", "11", 7, "0x 1"])
def test_data_of_another_shape_is_refused(value: object) -> None:
    """Bytes come as 0x and two digits each."""
    with pytest.raises(JsonRpcError, match="expected 0x-prefixed bytes"):
        Params([value]).data(0)


def test_length_of_fixed_bytes_is_checked() -> None:
    """An address has 20 bytes and a hash 32; the error says how many came."""
    assert Params([ADDRESS]).address(0) == bytes([0x11]) * 20
    with pytest.raises(JsonRpcError, match="expected 20 bytes, received 32"):
        Params([HASH]).address(0)
    with pytest.raises(JsonRpcError, match="expected 32 bytes, received 20"):
        Params([ADDRESS]).hash(0)


def test_missing_argument_is_named() -> None:
    """The error says which argument is missing."""
    with pytest.raises(JsonRpcError, match="missing value for required argument 1"):
        Params([ADDRESS]).quantity(1)


def test_long_value_is_not_repeated_whole() -> None:
    """An error quotes at most a line of what came."""
    with pytest.raises(JsonRpcError) as caught:
        Params(["x" * 1_000_000]).data(0)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "latest"),
        ("pending", "pending"),
        ("0x10", 16),
        (HASH, bytes([0xAB]) * 32),
        ({"blockNumber": "0x2"}, 2),
        ({"blockHash": HASH, "requireCanonical": True}, bytes([0xAB]) * 32),
    ],
)
def test_block_is_named_in_every_usual_way(value: object, expected: object) -> None:
    """A tag, a number, a hash, or an object of EIP-1898; nothing means the newest."""
    assert Params([value]).block(0) == expected


@pytest.mark.parametrize("value", ["newest", 5, {}, "0x" + "f" * 20])
def test_block_named_otherwise_is_refused(value: object) -> None:
    """Unknown tags, plain numbers, empty objects and heights beyond 2**63 are refused."""
    with pytest.raises(JsonRpcError):
        Params([value]).block(0)


@pytest.mark.parametrize(("value", "expected"), [(5, 5), ("0x5", 5)])
def test_test_verbs_take_numbers_both_ways(value: object, expected: int) -> None:
    """Counts come as JSON numbers from some clients and as quantities from others."""
    assert Params([value]).count(0) == expected


def test_call_object_is_read_with_either_name_of_its_data() -> None:
    """``input`` and ``data`` mean the same; where both are set they must agree."""
    assert Params([{"to": ADDRESS, "input": "0x01"}]).call(0).data == b"\x01"
    assert Params([{"to": ADDRESS, "data": "0x01", "input": "0x01"}]).call(0).data == b"\x01"
    with pytest.raises(JsonRpcError, match="not equal"):
        Params([{"data": "0x01", "input": "0x02"}]).call(0)


def test_call_object_without_recipient_creates() -> None:
    """A call without ``to`` is a contract creation, from the zero address, with all the gas of a block."""
    request = Params([{"data": "0x60"}]).call(0)
    assert (request.to, request.sender, request.gas, request.value_wei) == (None, bytes(20), None, 0)


def test_unknown_member_of_a_call_is_named() -> None:
    """A misspelt member is refused instead of being ignored."""
    with pytest.raises(JsonRpcError, match="form"):
        Params([{"form": ADDRESS}]).call(0)


def test_access_list_is_read() -> None:
    """An access list becomes addresses with their slots (EIP-2930)."""
    entry = {"address": ADDRESS, "storageKeys": ["0x" + "00" * 31 + "07"]}
    assert Params([{"accessList": [entry]}]).call(0).access_list == ((bytes([0x11]) * 20, (7,)),)
    with pytest.raises(JsonRpcError):
        Params([{"accessList": [{"address": ADDRESS}]}]).call(0)


def test_range_and_hash_exclude_each_other() -> None:
    """A filter names a range or one block, not both."""
    assert Params([{"fromBlock": "0x1"}]).block_range(0) == (1, "latest")
    assert Params([{"blockHash": HASH}]).block_range(0) == bytes([0xAB]) * 32
    with pytest.raises(JsonRpcError, match="cannot specify both"):
        Params([{"blockHash": HASH, "fromBlock": "0x1"}]).block_range(0)


def log(*topics: int, address: int = 0x11) -> MinedLog:
    """A log with these topics."""
    return MinedLog(
        address=bytes([address]) * 20,
        topics=tuple(topic.to_bytes(32, "big") for topic in topics),
        data=b"",
        block_number=1,
        block_hash=bytes(32),
        block_timestamp=0,
        transaction_hash=bytes(32),
        transaction_index=0,
        log_index=0,
    )


def topic(value: int) -> str:
    """A topic as JSON has it."""
    return f"0x{value:064x}"


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({}, True),
        ({"address": ADDRESS}, True),
        ({"address": ["0x" + "22" * 20, ADDRESS]}, True),
        ({"address": "0x" + "22" * 20}, False),
        ({"topics": [topic(1)]}, True),
        ({"topics": [topic(2)]}, False),
        ({"topics": [None, topic(2)]}, True),
        ({"topics": [[topic(9), topic(1)], [topic(2), topic(8)]]}, True),
        ({"topics": [[topic(9), None]]}, True),
        ({"topics": [None, None, None]}, False),
    ],
)
def test_filter_selects_by_position_and_alternatives(query: dict[str, object], *, matches: bool) -> None:
    """Topics match by position, a list holds alternatives, null matches all, and a longer filter nothing."""
    assert Params([query]).log_filter(0).matches(log(1, 2)) is matches


def test_empty_filter_selects_everything() -> None:
    """A filter without conditions selects a log without topics."""
    assert LogFilter().matches(log())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (b"", "execution reverted"),
        (bytes.fromhex("deadbeef"), "execution reverted"),
        (
            bytes.fromhex("08c379a0")
            + (32).to_bytes(32, "big")
            + (4).to_bytes(32, "big")
            + b"nope".ljust(32, b"\0"),
            "execution reverted: nope",
        ),
        (
            bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (400).to_bytes(32, "big"),
            "execution reverted",
        ),
    ],
)
def test_revert_shows_its_reason_where_there_is_one(output: bytes, message: str) -> None:
    """``Error(string)`` is spelt out; anything else, or a torn one, is left to ``data``."""
    error = reverted(output)
    assert (error.code, error.message, error.data) == (3, message, "0x" + output.hex())
