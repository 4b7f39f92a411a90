"""TLV schemas: reading, writing, and what no payload could match."""

import random

import pytest
from shapes import random_shape

from blueprint.errors import RegistrationError
from blueprint.extract.shape import Kind, Shape, describe
from blueprint.extract.tlv_schema import parse_schema, serialise_schema

PARAMS = bytes.fromhex(
    "0200051100000000086c616e6775616765110000000004636f6465130000000105696e70757411000000000015000000010461726773"
    "11000000000008000000000774696d656f7574"
)
RESULT = bytes.fromhex("0200031100000000067374646f7574110000000006737464657272070000000009657869745f636f6465")


def node(kind: int, *, length: int = 0, children: int = 0, name: bytes = b"\x00") -> bytes:
    """Return one node, without its children."""
    return bytes([kind]) + length.to_bytes(2, "big") + children.to_bytes(2, "big") + name


def schema(*nodes: bytes, fields: int = 1) -> bytes:
    """Return a schema of these nodes."""
    return b"\x02" + fields.to_bytes(2, "big") + b"".join(nodes)


def test_tlv_schema_vectors_parse_and_come_back_byte_for_byte() -> None:
    """The protocol's own vectors are read to the fields that they declare, and written again unchanged."""
    params = [f"{field.name}: {describe(field)}" for field in parse_schema(PARAMS)]
    assert params == [
        "language: String",
        "code: String",
        "input: Optional(String)",
        "args: List(String)",
        "timeout: U64",
    ]
    assert [field.kind for field in parse_schema(RESULT)] == [Kind.STRING, Kind.STRING, Kind.I32]
    assert serialise_schema(parse_schema(PARAMS)) == PARAMS
    assert serialise_schema(parse_schema(RESULT)) == RESULT


def test_tlv_schema_of_no_fields_is_no_bytes() -> None:
    """An empty list of fields encodes as empty bytes, and empty bytes parse to no fields."""
    assert serialise_schema(()) == b""
    assert parse_schema(b"") == ()


@pytest.mark.parametrize("size", [0, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])
def test_tlv_schema_carries_names_of_every_length_class(size: int) -> None:
    """Names on both sides of each boundary of the compact length survive the round trip."""
    fields = (Shape(kind=Kind.U8, name="n" * size), Shape(kind=Kind.BOOL, name="after"))
    assert parse_schema(serialise_schema(fields)) == fields


def test_tlv_schema_round_trips_random_shapes() -> None:
    """Any shape within the limits comes back as it was."""
    rng = random.Random(4)
    for _ in range(300):
        fields = tuple(random_shape(rng) for _ in range(rng.randint(1, 5)))
        assert parse_schema(serialise_schema(fields)) == fields


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x01\x00\x00", "version 1"),
        (b"\x02", "ends early"),
        (b"\x02\x00", "ends early"),
        (schema(), "ends early"),
        (schema(node(2)) + b"x", "bytes left over after the last field: 1"),
        (schema(node(23)), "kind 23 is unknown"),
        (schema(node(16, length=0)), "1 to 32 bytes wide"),
        (schema(node(16, length=33)), "1 to 32 bytes wide"),
        (schema(node(19)), "exactly 1 child"),
        (schema(node(20, length=2)), "exactly 1 child"),
        (schema(node(21, children=2), node(2), node(2)), "exactly 1 child"),
        (schema(node(2, children=1), node(2)), "takes no children"),
        (schema(node(22, children=257), *[node(2)] * 257), "at most 256 members"),
        (schema(node(19, children=1), node(0)), "cannot be told from none"),
        (schema(node(2, name=b"\x80\x01x")), "more bytes than it needs"),
        (schema(node(2, name=b"\xc0\x00\x01x")), "more bytes than it needs"),
        (schema(node(2, name=b"\x01\xff")), "not UTF-8"),
        (schema(node(2, name=b"\xff\xff\xff\xff")), "ends early"),
        (schema(*[node(21, children=1)] * 32, node(2)), "deeper than 32"),
    ],
)
def test_tlv_schema_that_nothing_can_match_is_refused(data: bytes, problem: str) -> None:
    """Each way in which a schema can be wrong is refused with its own words."""
    with pytest.raises(RegistrationError, match=problem):
        parse_schema(data)


def test_tlv_schema_of_thirty_two_levels_is_accepted() -> None:
    """Thirty-two levels are the deepest that the chain validates, and ours too."""
    assert parse_schema(schema(*[node(21, children=1)] * 31, node(2)))


def test_tlv_schema_reader_raises_nothing_else_on_any_bytes() -> None:
    """Whatever the bytes are, reading them ends in fields or in RegistrationError."""
    rng = random.Random(5)
    for _ in range(2000):
        data = bytearray(b"\x02\x00\x02" + rng.randbytes(rng.randint(0, 60)))
        for at in range(3, len(data)):
            if rng.random() < 0.7:
                data[at] = rng.choice([0, 0, 0, 1, 2, 17, 19, 20, 21, 22])
        try:
            assert serialise_schema(parse_schema(bytes(data))) == bytes(data)
        except RegistrationError:
            continue


def test_tlv_schema_refuses_to_write_what_it_would_not_read() -> None:
    """A shape outside the limits is refused when it is written, with the field's name."""
    with pytest.raises(RegistrationError, match="'bad'.*1 to 32"):
        serialise_schema([Shape(kind=Kind.FIXED_BYTES, name="bad", length=40)])
    with pytest.raises(RegistrationError, match="at most 65535 fields"):
        serialise_schema([Shape(kind=Kind.U8)] * 65_536)
