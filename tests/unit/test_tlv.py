"""TLV payloads: the protocol's vectors, strictness, and bounds on hostile bytes."""

import random
import time
import tracemalloc

import pytest
from shapes import damaged, random_shape, random_value

from blueprint.errors import InputsUndecodableError, UnencodableError
from blueprint.extract.shape import Kind, Shape
from blueprint.extract.tlv import MAX_WIDTHLESS_VALUES, decode_payload, encode_payload
from blueprint.extract.tlv_schema import parse_schema

PARAMS = bytes.fromhex(
    "0200051100000000086c616e6775616765110000000004636f6465130000000105696e70757411000000000015000000010461726773"
    "11000000000008000000000774696d656f7574"
)
PAYLOAD = bytes.fromhex("06707974686f6e087072696e74283129000201610162000000000000001e")

BYTES = Shape(kind=Kind.BYTES, name="data")
U8 = Shape(kind=Kind.U8)
VOID = Shape(kind=Kind.VOID)


def listed(item: Shape, name: str = "items") -> Shape:
    """Return a list of these."""
    return Shape(kind=Kind.LIST, name=name, children=(item,))


def test_tlv_vector_decodes_and_encodes_byte_for_byte() -> None:
    """The protocol's payload vector is read and written exactly."""
    values = decode_payload(parse_schema(PARAMS), PAYLOAD)
    assert values == ("python", "print(1)", None, ("a", "b"), 30)
    assert encode_payload(parse_schema(PARAMS), values) == PAYLOAD


@pytest.mark.parametrize(
    ("size", "prefix"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8080"),
        (16_383, "bfff"),
        (16_384, "c24000"),
        (20_000, "c24e20"),
        (65_536, "c3010000"),
    ],
)
def test_tlv_compact_length_has_one_form_for_each_size(size: int, prefix: str) -> None:
    """Lengths on both sides of each boundary are written as the chain reads them."""
    payload = encode_payload([BYTES], [b"x" * size])
    assert payload.hex().startswith(prefix)
    assert len(payload) == size + len(prefix) // 2
    assert decode_payload([BYTES], payload) == (b"x" * size,)


@pytest.mark.parametrize(
    "prefix", ["8001", "c101", "c180", "c2007f", "c23fff", "c3004000", "e0" + "00" * 31 + "01"]
)
def test_tlv_length_in_more_bytes_than_needed_is_refused(prefix: str) -> None:
    """A value has one encoding: a longer way to write its length is an error."""
    with pytest.raises(InputsUndecodableError, match="data: the length .* more bytes than it needs"):
        decode_payload([BYTES], bytes.fromhex(prefix) + b"x" * 20_000)


@pytest.mark.parametrize(
    ("fields", "payload", "problem"),
    [
        ([BYTES], b"", "data: bytes expected: 1, left: 0"),
        ([BYTES], b"\x05abc", "data: bytes expected: 5, left: 3"),
        ([BYTES], b"\x80", "data: bytes expected: 1"),
        ([BYTES], b"\xc0", "takes 0 bytes"),
        ([BYTES], b"\xe1" + b"\xff" * 40, "takes 33 bytes"),
        ([BYTES], b"\xe0" + b"\xff" * 40, "bytes expected: over 2\\^64"),
        ([BYTES], b"\x01ab", "inputs: bytes left over after the last field: 1"),
        ([], b"a", "inputs: bytes left over after the last field: 1"),
        ([Shape(kind=Kind.BOOL, name="flag")], b"\x02", "flag: a bool is 0 or 1, received 2"),
        ([Shape(kind=Kind.STRING, name="text")], b"\x01\xff", "text: the text is not UTF-8"),
        ([Shape(kind=Kind.U256, name="big")], b"\0" * 31, "big: bytes expected: 32, left: 31"),
        ([listed(U8)], b"\xa7\x11" + b"\0" * 10_001, "items: a list has at most 10000 items, received 10001"),
        ([listed(U8)], b"\x03\x01\x02", r"items\[2\]: bytes expected: 1, left: 0"),
        (
            [Shape(kind=Kind.OPTIONAL, name="maybe", children=(U8,))],
            b"\x02\x01\x01",
            "maybe: the optional value is shorter than its length says, in bytes: 1",
        ),
        (
            [Shape(kind=Kind.OPTIONAL, name="maybe", children=(U8,))],
            b"\x05\x01",
            "maybe: .* takes: 5, left: 1",
        ),
        (
            [Shape(kind=Kind.STRUCT, name="pair", children=(U8, U8))],
            b"\x03\x01\x02\x03",
            "pair: the struct has 2 members, received 3",
        ),
        (
            [Shape(kind=Kind.STRUCT, name="pair", children=(U8, listed(U8, "tail")))],
            b"\x02\x01\x02\x07",
            r"pair\.tail\[1\]: bytes expected: 1",
        ),
    ],
)
def test_tlv_payload_that_does_not_match_says_where_and_why(
    fields: list[Shape], payload: bytes, problem: str
) -> None:
    """Each way in which a payload can be wrong has its own message, with the path to the field."""
    with pytest.raises(InputsUndecodableError, match=problem):
        decode_payload(fields, payload)


def test_tlv_round_trips_random_values_of_every_kind() -> None:
    """Any value of any shape comes back as it was."""
    rng = random.Random(1)
    for _ in range(400):
        fields = [random_shape(rng) for _ in range(rng.randint(1, 4))]
        values = tuple(random_value(rng, field) for field in fields)
        assert decode_payload(fields, encode_payload(fields, values)) == values


def test_tlv_decoder_accepts_exactly_the_encodings_that_it_writes() -> None:
    """Damaged payloads end in InputsUndecodableError, or are themselves the encoding of some value."""
    rng = random.Random(2)
    for _ in range(1500):
        fields = [random_shape(rng) for _ in range(rng.randint(1, 3))]
        payload = damaged(rng, encode_payload(fields, [random_value(rng, field) for field in fields]))
        try:
            values = decode_payload(fields, payload)
        except InputsUndecodableError:
            continue
        assert encode_payload(fields, values) == payload


def test_tlv_refuses_a_flood_of_voids() -> None:
    """A few bytes that name a hundred million empty values are refused early, in little memory."""
    inner = listed(listed(VOID))
    payload = encode_payload([listed(U8)], [(0,) * 10_000])[:2] + (b"\xa7\x10" * 30_000)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(
        InputsUndecodableError, match=f"more than {MAX_WIDTHLESS_VALUES} values that take no bytes"
    ):
        decode_payload([listed(inner)], payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 1024 * 1024
    assert time.perf_counter() - began < 5


def test_tlv_refuses_arrays_of_empty_arrays() -> None:
    """Arrays that hold nothing, nested by the schema, are bounded like voids."""
    empty = Shape(kind=Kind.ARRAY, length=0, children=(U8,))
    row = Shape(kind=Kind.ARRAY, length=65_535, children=(empty,))
    with pytest.raises(InputsUndecodableError, match="take no bytes"):
        decode_payload([Shape(kind=Kind.ARRAY, length=65_535, children=(row,))], b"")


def test_tlv_refuses_a_count_beyond_the_payload_at_once() -> None:
    """A count or a length far over the payload allocates nothing."""
    tracemalloc.start()
    for payload in (b"\xc8" + b"\xff" * 8, b"\xe0" + b"\xff" * 32):
        with pytest.raises(InputsUndecodableError):
            decode_payload([BYTES], payload)
        with pytest.raises(InputsUndecodableError):
            decode_payload([listed(U8)], payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024 * 1024


@pytest.mark.parametrize(
    ("shape", "value", "problem"),
    [
        (U8, 256, "from 0 to 255, received 256"),
        (U8, True, "integer"),
        (Shape(kind=Kind.I8), -129, "from -128 to 127"),
        (Shape(kind=Kind.BOOL), 1, "True or False"),
        (Shape(kind=Kind.ADDRESS), b"x", "20 bytes, received bytes of 1 bytes"),
        (Shape(kind=Kind.FIXED_BYTES, length=4), b"12345", "4 bytes"),
        (Shape(kind=Kind.STRING), "\ud800", "UTF-8"),
        (Shape(kind=Kind.STRING), b"x", "text"),
        (Shape(kind=Kind.ARRAY, length=2, children=(U8,)), (1,), "exactly 2 items"),
        (Shape(kind=Kind.STRUCT, children=(U8,)), (1, 2), "1 members"),
        (listed(U8), (1, 300), r"items\[1\]|\[1\]: expected an integer"),
        (listed(U8), (0,) * 10_001, "at most 10000"),
        (VOID, 0, "None"),
    ],
)
def test_tlv_value_that_does_not_fit_is_refused_by_name(shape: Shape, value: object, problem: str) -> None:
    """What a handler must not return is named, without showing contents."""
    with pytest.raises(UnencodableError, match=problem):
        encode_payload([shape], [value])  # type: ignore[list-item] # wrong on purpose


def test_tlv_refusal_shows_no_contents() -> None:
    """A text that does not fit is described by its size alone: it may be a secret."""
    with pytest.raises(UnencodableError) as caught:
        encode_payload([U8], ["hunter2"])
    assert "hunter2" not in str(caught.value)
