"""How values of JSON-RPC become integers and bytes."""

import pytest

from blueprint.chain import wire
from blueprint.errors import RpcError


def test_quantities_and_data_round_trip():
    """What is written as hexadecimal reads back as the same value."""
    assert wire.parse_quantity(wire.to_quantity(2**70)) == 2**70
    assert wire.parse_bytes(wire.to_hex(b"\x00\xff")) == b"\x00\xff"
    assert wire.parse_hash("0x" + "ab" * 32) == b"\xab" * 32
    assert wire.parse_address("0x" + "cd" * 20) == b"\xcd" * 20


@pytest.mark.parametrize("value", [None, 7, "7", "0x", "0x-1", "0x1_0", "0xzz", "", [], {}, True])
def test_a_wrong_quantity_is_an_end_point_failure(value):
    """A quantity of the wrong shape is never taken for zero."""
    with pytest.raises(RpcError, match="expected a hexadecimal quantity"):
        wire.parse_quantity(value, what="the block number")


@pytest.mark.parametrize("value", [None, 7, "ab", "0xa", "0xzz", {}])
def test_wrong_data_is_an_end_point_failure(value):
    """Data of the wrong shape is never taken for empty."""
    with pytest.raises(RpcError, match="expected hexadecimal data"):
        wire.parse_bytes(value)


def test_a_hash_of_the_wrong_length_is_refused_and_quoted_briefly():
    """The message quotes what came, but never a megabyte of it."""
    with pytest.raises(RpcError, match="expected 32 bytes") as caught:
        wire.parse_hash("0x" + "ab" * 10_000)
    assert len(str(caught.value)) < 250


def test_objects_and_members_are_required():
    """A missing member is named."""
    assert wire.parse_member(wire.parse_object({"a": 1}, what="x"), "a", what="x") == 1
    with pytest.raises(RpcError, match="a block"):
        wire.parse_object([], what="a block")
    with pytest.raises(RpcError, match=r"a block\.hash"):
        wire.parse_member({}, "hash", what="a block")
